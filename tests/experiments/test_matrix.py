"""One checkpoint under many schedules: its rows, and what is written of them."""

import csv

import numpy as np
import pytest

from src.config import ModelConfig
from src.experiments import matrix
from src.schedules import Geometry, parse, resolve
from src.training.evaluate import Answers

SMALL = Geometry.from_config(ModelConfig("skipvit_ti_16_224", num_classes=3, image_size=32, patch_size=4))
SPECS = ["none", "6(55%)+11", "6(55%,random)+11", "6(25%)+11"]
LABELS = np.array([0, 1, 2, 0, 1, 1])


def said(*first, loss=1.0):
    """The answers of three classes whose first choices are given."""
    best = np.array([[top, *sorted({0, 1, 2} - {top})] for top in first])
    return Answers(LABELS, best, np.full(6, 0.5), np.broadcast_to(np.float64(loss), 6).copy())


@pytest.fixture
def answers():
    broken = said(0, 1, 2, 0, 1, 1)
    broken.loss[5] = np.nan
    return [said(0, 1, 2, 0, 1, 0), said(0, 1, 2, 1, 1, 1), said(1, 0, 0, 0, 1, 1, loss=3.0), broken]


@pytest.fixture
def rows(answers):
    return matrix.rows_of([resolve(parse(spec), SMALL) for spec in SPECS], answers)


def test_rows_count_and_compare_with_the_first(rows):
    assert [row.tokens for row in rows] == SPECS
    assert [row.top1 for row in rows] == pytest.approx([100 * 5 / 6, 100 * 5 / 6, 50, 100 * 5 / 6], abs=1e-4)
    assert [row.top5 for row in rows] == pytest.approx([100, 100, 100, 100 * 5 / 6], abs=1e-4)
    assert [(row.lost, row.won) for row in rows] == [(0, 0), (1, 1), (3, 1), (0, 0)]
    assert [row.loss for row in rows] == [1, 1, 3, 1]  # of a logit that is not finite there is no loss
    assert rows[0].macs > rows[3].macs > rows[1].macs == rows[2].macs


def test_intervals_are_wilsons(rows):
    """By hand for 3 of 6: centre (3 + z²/2) / (6 + z²), z = 1.96."""
    z = 1.959964
    half = z * np.sqrt(6 * 0.25 + z**2 / 4) / (6 + z**2)
    assert (rows[2].low, rows[2].high) == pytest.approx((100 * (0.5 - half), 100 * (0.5 + half)), abs=0.01)
    assert "| `6(55%,random)+11` |" in matrix.table(rows)
    assert f"50.00 ({rows[2].low:.2f} to {rows[2].high:.2f})" in matrix.table(rows)


def test_what_is_written(tmp_path, rows, answers):
    matrix.write(tmp_path / "out", rows, answers, ("ant", "bee", "cat"))
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {
        "evaluation.csv", "table.md", "classes.csv", "pairs.csv", "predictions.csv", "accuracy.png", "shares.png"
    }  # fmt: skip
    classes, pairs, predictions, evaluation = (
        list(csv.DictReader((tmp_path / "out" / name).read_text().splitlines()))
        for name in ("classes.csv", "pairs.csv", "predictions.csv", "evaluation.csv")
    )
    assert [(line["class"], line["images"]) for line in classes] == [("ant", "2"), ("bee", "3"), ("cat", "1")]
    assert [line["none"] for line in classes] == ["100.0000", "66.6667", "100.0000"]
    assert [line["6(25%)+11"] for line in classes] == ["100.0000", "66.6667", "100.0000"]
    assert [(line["first_alone"], line["second_alone"], line["p"]) for line in pairs] == [
        ("1", "1", "1"), ("3", "1", "0.625"), ("0", "0", "1"), ("3", "1", "0.625"), ("1", "1", "1"), ("1", "3", "0.625")
    ]  # fmt: skip
    assert (pairs[2]["first"], pairs[2]["second"]) == (SPECS[0], SPECS[3])
    assert [line["class"] for line in predictions] == ["ant", "bee", "cat", "ant", "bee", "bee"]
    assert [line["6(55%,random)+11 predicted"] for line in predictions] == ["bee", "ant", "ant", "ant", "bee", "bee"]
    assert [line["tokens"] for line in evaluation] == SPECS


def test_schedules_of_several_kinds_have_no_plot_of_one(tmp_path, rows, answers):
    """What is drawn over shares, or as a grid, differs in nothing else."""
    specs = ["none", "2(55%)+8", "4(55%)+8", "4(55%)+11"]
    grid = matrix.rows_of([resolve(parse(spec), SMALL) for spec in specs], answers)
    for number, (shown, found) in enumerate(((rows, {"shares.png"}), (grid, {"distance.png"}), (grid[:3], set()))):
        folder = tmp_path / str(number)
        matrix.write(folder, shown, answers[: len(shown)], ("ant", "bee", "cat"))
        assert {path.name for path in folder.glob("*.png")} == found | {"accuracy.png"}


def test_a_line_of_the_plot_is_a_ranking(rows):
    groups = {ranking: [row.tokens for row in found] for ranking, found in matrix.by_ranking(rows).items()}
    assert groups == {"cls": ["6(55%)+11", "6(25%)+11"], "random": ["6(55%,random)+11"], "dense": ["none"]}
