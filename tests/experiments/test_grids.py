"""Grids of schedules: which rows form one, where its cells stand, and that its plots are drawn."""

import math

import numpy as np
import pytest
from matplotlib import image

from src.config import load
from src.errors import UserError
from src.experiments import plots
from src.experiments.experiment import Experiment
from src.experiments.grids import arrange, by_distance, by_share, panels
from src.experiments.paired import Rule
from src.experiments.variants import Variant, read_specs
from tests.experiments.test_costs import QUICK, train
from tests.helpers.commands import ROOT, run_here

GRID = ["none", "2(55%)+6", "2(55%)+11", "4(55%)+11", "2(55%,random)+6", "4(55%,random)+11"]


@pytest.fixture
def drawn(monkeypatch):
    """The titles and numbers of every heat map that is drawn, by file."""
    found = {}

    def keep(figure, path, save=plots._save):
        found[path.name] = [(axes.get_title(), [text.get_text() for text in axes.texts]) for axes in figure.axes]
        save(figure, path)

    monkeypatch.setattr(plots, "_save", keep)
    return found


def test_cells_stand_at_their_start_and_return():
    grids = by_distance(GRID)
    assert grids == {"cls": {(2, 6): "2(55%)+6", (2, 11): "2(55%)+11", (4, 11): "4(55%)+11"},
                     "random": {(2, 6): "2(55%,random)+6", (4, 11): "4(55%,random)+11"}}  # fmt: skip
    every = [cell for cells in grids.values() for cell in cells]
    starts, backs, numbers = arrange({(2, 6): 1.0, (4, 11): 2.0}, every)
    assert (starts, backs) == ([2, 4], [6, 11])
    np.testing.assert_array_equal(numbers, [[1.0, np.nan], [np.nan, 2.0]])


@pytest.mark.parametrize(
    "others",
    [
        ["6(45%)+11"],  # another ratio
        ["6(55%)"],  # no return
        ["6(55%)+fused"],
        ["<6(55%,random)+11"],  # before the block
        ["4,7(55%,55%)+11"],  # two drops
        ["2(55%)+4;6(55%)+11"],
        ["<2..4(55%,random)+next"],
    ],
)
def test_what_differs_in_something_else_is_no_grid(others):
    assert by_distance(GRID)
    assert by_distance([*GRID, *others]) == {}


def test_one_line_is_no_grid():
    assert by_distance(["6(55%)+8", "6(55%)+9", "6(55%)+10"]) == {}
    assert by_distance(["none"]) == by_distance([]) == {}
    assert panels(dict.fromkeys(["none", "6(55%)+8"], 0.0), {}, "dense", 50.0) == ()


def test_a_line_over_shares_is_a_ranking():
    specs = ["none", "6(75%)+11", "6(25%)+11", "6(25%,norm)+11"]
    assert by_share(specs) == {"cls": {25.0: "6(25%)+11", 75.0: "6(75%)+11"}, "norm": {25.0: "6(25%,norm)+11"}}
    for other in ("6(25%)+10", "5(25%)+11", "6(25%)", "6(25%)+fused", "<6(25%,norm)+11"):
        assert by_share([*specs, other]) == {}
    assert by_share(["none", "6(25%)+11", "6(25%,random)+11"]) == {}  # one share


def test_the_shipped_files_are_a_grid_and_lines():
    shares = by_share(read_specs(ROOT / "configs/tables/shares.yaml"))
    assert list(shares) == ["cls", "random", "lowest", "norm"]
    assert {tuple(line) for line in shares.values()} == {(25.0, 40.0, 55.0, 75.0)}
    grids = by_distance(read_specs(ROOT / "configs/tables/distance.yaml"))
    assert {ranking: len(cells) for ranking, cells in grids.items()} == {"cls": 17, "random": 17}
    for name in ("shares", "distance"):
        assert read_specs(ROOT / f"configs/tables/{name}.yaml")[0] == "none"  # what all are compared with


def test_rows_of_trainings_are_no_schedules_to_evaluate(tmp_path):
    with pytest.raises(UserError, match=r"the row skip sets train\.warmup_dense_epochs: one network"):
        read_specs(ROOT / "configs/tables/phases.yaml")
    both = run_here("eval", "--rows", "rows.yaml", "--tokens", "none", cwd=tmp_path)
    assert (both.returncode, both.stderr.count("--tokens and --rows both name schedules; give one")) == (2, 1)
    assert "rows nowhere.yaml cannot be read" in run_here("eval", "--rows", "nowhere.yaml", cwd=tmp_path).stderr


def test_an_experiment_draws_its_grid(tmp_path, drawn):
    """The group that is one, with its numbers in its cells and none in the empty ones; no group, no plot."""
    settings = {"train.epochs": 1, "train.warmup_dense_epochs": 0}
    groups = {"others": [Variant("6(45%)+fused")], "distance": [Variant(spec) for spec in GRID]}
    found = Experiment.plan(QUICK, load(QUICK, settings), settings, groups, 1, tmp_path / "out", Rule())
    tops = {spec: 50.0 + number for number, spec in enumerate([*GRID, "6(45%)+fused"])}
    for job in found.jobs:
        train(job, [tops[str(job.variant)]], seconds=1.0)
    found.draw()
    accuracy, gain, random_accuracy, _ = drawn["distance.png"]
    assert accuracy == ("top-1, difference to dense (50.00%), points\nranked by cls", ["+1.00", "+2.00", "+3.00"])
    assert random_accuracy[1] == ["+4.00", "+5.00"]
    assert gain[0] == "ideal gain on dense\nranked by cls"
    assert all(text.endswith("%") for text in gain[1])
    assert image.imread(tmp_path / "out/distance.png").std() > 0

    del found.groups["distance"]
    (tmp_path / "out/distance.png").unlink()
    found.draw()
    assert not (tmp_path / "out/distance.png").exists()


@pytest.mark.parametrize("rows", [8, 36])
def test_names_beside_a_plot_fit_the_picture(tmp_path, monkeypatch, rows):
    """Else the last ones are cut off without a word."""
    fits = []

    def look(figure, path):
        figure.canvas.draw()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        fits.append(box.y0 >= 0 and box.y1 <= figure.bbox.y1 + 1 and box.x1 <= figure.bbox.x1 + 1)

    monkeypatch.setattr(plots, "_save", look)
    curves = {Variant(f"{block}(55%)+{block + 20}"): [[(1, 10.0), (2, 20.0)]] for block in range(1, rows)}
    plots.plot_curves(curves, tmp_path / "curves.png")
    assert fits == [True]


@pytest.mark.parametrize(("rows", "bands"), [(7, 7), (8, 0)])
def test_curves_can_be_told_apart(tmp_path, monkeypatch, rows, bands):
    drawn = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure))
    seeds = [[(1, 10.0), (2, 20.0)], [(1, 11.0), (2, 19.0)]]
    variants = [Variant("none"), *(Variant(f"{block}(55%)+{block + 20}") for block in range(1, rows))]
    plots.plot_curves(dict.fromkeys(variants, seeds), tmp_path / "curves.png")
    (axes,) = drawn[0].axes
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines}) == rows
    assert len(axes.collections) == bands
    assert ("band" in axes.get_ylabel()) == bool(bands)


def test_gains_are_the_measured_ones_where_there_are_any():
    differences, gains = dict.fromkeys(GRID, -0.5), {spec: math.sqrt(number) for number, spec in enumerate(GRID)}
    ideal, measured = panels(differences, gains, "dense", 50.0), panels(differences, gains, "dense", 50.0, True)
    assert (ideal[1].title, measured[1].title) == ("ideal gain on dense", "measured gain on dense")
    assert measured[1].cells["random"] == {(2, 6): 2.0, (4, 11): math.sqrt(5)}
