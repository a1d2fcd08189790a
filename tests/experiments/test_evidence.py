"""The experiments that the evidence comes from: every row of their files trains by the command that stands in it."""

import re
import shlex

import pytest

from src.config import load, read_overrides
from src.errors import UserError
from src.experiments.experiment import Experiment
from src.experiments.paired import Rule
from src.experiments.variants import read_rows
from src.schedules import plan_phases
from tests.helpers.commands import ROOT

TABLES = ROOT / "configs/tables"
CIFAR = str(ROOT / "configs/cifar10.yaml")


def command(name):
    """Return the overrides of the command that stands in a file of rows."""
    text = " ".join(re.findall(r"^# (.*)$", (TABLES / f"{name}.yaml").read_text(encoding="utf-8"), re.M))
    words = shlex.split(text.split("Command:")[1].split("Rule:")[0])
    assert words[words.index("--rows") + 1] == f"configs/tables/{name}.yaml"
    return read_overrides([word for word in words if re.match(r"\w+\.\w+=", word)])


def plan(name, folder, **changes):
    settings = {**command(name), **changes}
    groups = read_rows(TABLES / f"{name}.yaml")
    return Experiment.plan(CIFAR, load(CIFAR, settings), settings, groups, 1, folder / "out", Rule())


@pytest.mark.parametrize(("name", "rows"), [("evidence", 13), ("phases", 6), ("distance", 35)])
def test_every_row_trains_by_the_command_in_its_file(tmp_path, name, rows):
    planned = plan(name, tmp_path)
    planned.check_measurable()
    assert len(planned.jobs) == rows
    for job in planned.jobs:
        assert sum(phase.epochs for phase in plan_phases(job.config)) == planned.config.train.epochs
    change = {"model.depth": 8} if name == "distance" else {"train.epochs": 10}
    with pytest.raises(UserError, match=r"block 10 is out of range|train\.phases have \d+ epochs"):
        plan(name, tmp_path, **change)


def test_the_rows_that_train_already_keep_their_folders(tmp_path):
    folders = [job.run.path.parent.name for job in plan("evidence", tmp_path).jobs]
    assert folders[:7] == ["none", "6_55_11", "4_7_30_30_11", "6_45_fused", "6_55_random_11", "6_55",
                           "6_55_11_train_warmup_dense_epochs_0"]  # fmt: skip
    assert folders[7:] == ["sizes", "sizes_and_skip", "growth", "random_route", "random_blocks", "dense_tail"]


def test_a_dense_epoch_comes_first_unless_a_row_says_otherwise(tmp_path):
    spans = {str(job.variant): [(p.tokens, p.epochs, p.image_size) for p in plan_phases(job.config)]
             for job in plan("evidence", tmp_path).jobs}  # fmt: skip
    assert spans["random route"] == [("none", 1, 32), ("<3(50%,random)+10", 11, 32)]
    assert spans["random blocks"] == [("none", 1, 32), ("<2..11(50%,random)+next", 11, 32)]
    assert spans["dense tail"] == [("none", 1, 32), ("6(55%)+11", 8, 32), ("none", 3, 32)]
    assert spans["sizes and skip"] == [("6(55%)+11", 4, size) for size in (16, 24, 32)]
    assert spans["6(55%)+11 train.warmup_dense_epochs=0"] == [("6(55%)+11", 12, 32)]


def test_the_cells_of_the_distance_are_start_and_return():
    (rows,) = read_rows(TABLES / "distance.yaml").values()
    cells = [(start, back) for start in (2, 4, 6, 8) for back in (6, 8, 10, 11, 12) if back > start + 1]
    assert [row.tokens for row in rows] == [
        "none", *(f"{s}(55%{ranking})+{r}" for ranking in ("", ",random") for s, r in cells)]  # fmt: skip
