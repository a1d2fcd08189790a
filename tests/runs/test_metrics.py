"""metrics.csv: what is written is read back, and what is not of its form is named."""

import csv
import math
from dataclasses import replace

import pytest

from src.errors import UserError
from src.runs.metrics import COLUMNS, Metrics, read_metrics, throughput, write_metrics

ROWS = [
    Metrics(1, 1, "none", 2.5, 1e-4, None, None, 700.0, 9.25),
    Metrics(2, 2, "4,7(30%,30%)+11", 1.25, 2e-4, 33.3333, 91.0, 800.0, 8.5),
    Metrics(3, 2, "4,7(30%,30%)+11", None, 1e-4, 60.4444, 92.0, None, 7.75),
    Metrics(4, 2, "4,7(30%,30%)+11", 0.5, 1e-5, 61.0, 92.5, 1000.0, 7.5),
]


def test_rows_are_read_back(tmp_path):
    path = tmp_path / "metrics.csv"
    assert read_metrics(path) == []
    write_metrics(path, ROWS)
    assert read_metrics(path) == ROWS
    text = path.read_text()
    assert text.splitlines()[0] == ",".join(COLUMNS)
    write_metrics(path, read_metrics(path))
    assert path.read_text() == text
    write_metrics(path, [Metrics(1, 1, "none", math.nan, top1=math.inf)])
    assert read_metrics(path) == [Metrics(1, 1, "none")]


def test_rows_have_an_image_size_and_those_of_old_files_none(tmp_path):
    path = tmp_path / "metrics.csv"
    sized = [replace(row, image_size=size) for row, size in zip(ROWS, ("160", "192x256", "", "224"))]
    write_metrics(path, sized)
    assert read_metrics(path) == sized
    assert path.read_text().splitlines()[2].endswith(",8.50,192x256")
    old = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
    path.write_text("".join(f"{line}\n" for line in old))
    assert read_metrics(path) == ROWS


def test_speed_is_the_last_phases():
    assert throughput(ROWS) == 900.0
    assert throughput(ROWS[:1]) == 700.0
    assert throughput([]) is None
    assert throughput(ROWS[2:3]) is None


def test_a_file_that_is_no_csv_is_named(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(f'{",".join(COLUMNS)}\n1,"{"x" * 200}')
    before = csv.field_size_limit(100)
    try:
        with pytest.raises(UserError, match=r"metrics\.csv is not a file of metrics \(field larger than"):
            read_metrics(path)
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize(
    "line", ["one,1,none,1,1,1,1,1,1", "1,1,none", "1,1,none,fast,1,1,1,1,1", "1,1,none,1,1,1,1,1,1,wide"]
)
def test_a_spoilt_row_is_named(tmp_path, line):
    path = tmp_path / "metrics.csv"
    write_metrics(path, ROWS[:1])
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(UserError, match=r"metrics\.csv, line 3: is not a row of metrics \(epoch, phase, .*\); mend or"):
        read_metrics(path)
