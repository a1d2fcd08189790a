"""Costs of trainings, the time to the dense model's accuracy, and the table and plots of them, without a training."""

import json
import math
import re

import numpy as np
import pytest
from matplotlib import image
from scipy import stats

from src.config import PredictorConfig, load, side_text
from src.errors import UserError
from src.experiments.costs import Costs, Spent, compare, follow, reached
from src.experiments.experiment import Experiment
from src.experiments.paired import Rule, pooled_sd, power
from src.experiments.results import read_results
from src.experiments.variants import DENSE, Variant, read_rows
from src.runs import Metrics
from src.runs.images import RunImages
from src.runs.metrics import write_metrics
from src.schedules import Geometry, parse, plan_phases, resolve
from src.schedules.costs import run_costs
from tests.helpers.commands import ROOT

QUICK = str(ROOT / "configs/quickstart.yaml")


def spent(*tops):
    return [Spent(number, top1, 10.0 * number, 2.0 * number, 3.0 * number) for number, top1 in enumerate(tops, 1)]


@pytest.mark.parametrize(
    ("tops", "epoch"),
    [
        ([50, 60, 70, 71], 3),
        ([50, 75, 60, 70], 4),  # the second epoch's luck does not last
        ([50, 75, 80, 69.9], None),  # nor does this, though its best is above
        ([None, 75, None, 71], 2),  # epochs that were not evaluated neither count nor disturb
        ([70, 70, 70, 70], 1),
        ([10, 20, 30, 40], None),
    ],
)
def test_the_dense_accuracy_is_reached_where_it_stays(tops, epoch):
    found = reached(spent(*tops), 70.0)
    assert (found.epoch if found else None) == epoch


def test_costs_are_relative_to_the_whole_dense_training():
    dense = spent(40, 60, 62, 61)
    assert compare(dense, dense) == Costs(1, 1, 3, 0.75, 0.75, 6.0)  # the dense model is under the same rule
    short = [Spent(1, 50, 8.0, 1.0, 1.5), Spent(2, 61, 16.0, 2.0, 3.0)]
    assert compare(short, dense) == Costs(0.4, 0.25, 2, 0.4, 0.25, 2.0)
    never = compare([Spent(1, 60.99, 8.0, 1.0, 1.5)], dense)
    assert never == Costs(0.2, 0.125, math.inf, math.inf, math.inf, math.inf)
    unknown = compare([Spent(1, 62, 8.0, math.nan, math.nan)], dense)
    assert unknown == Costs(0.2, None, 1, 0.2, None, None)


def test_multiplications_are_those_of_each_epochs_schedule():
    config = load(QUICK)
    rows = [Metrics(1, 1, "none", top1=10.0, seconds=4.0), Metrics(2, 2, "6(55%)+11", top1=20.0, seconds=3.0)]
    geometry = Geometry.from_config(config.model)
    dense, skip = (resolve(parse(spec), geometry).macs for spec in ("none", "6(55%)+11"))
    first, second = follow(rows, config, images=100)
    assert (first.macs, second.macs) == (100 * dense, 100 * (dense + skip))
    assert (second.seconds, second.time) == (7.0, 7.0)
    speeds = {"none": 50.0, "6(55%)+11": 100.0}
    assert follow(rows, config, 100, lambda row: speeds[row.tokens])[-1].time == 3.0


def dense_macs(side):
    """Count by hand what a dense model of width 64, depth 12, patch 4 and 10 classes multiplies for an image."""
    patches = (side // 4) ** 2
    return patches * 48 * 64 + 12 * block_macs(patches + 1) + 64 * 10


def block_macs(tokens):
    """Count a block of width 64 by hand: QKV and projection, attention twice, MLP."""
    return 4 * tokens * 64**2 + 2 * tokens**2 * 64 + 8 * tokens * 64**2


def test_multiplications_are_those_of_each_epochs_image_size():
    config = load(QUICK, {"model.num_classes": 10})
    rows = [Metrics(epoch, 1, "none", image_size=size) for epoch, size in enumerate(["8", "12", "16", ""], 1)]
    macs = [spent.macs for spent in follow(rows, config, images=1)]
    assert macs == np.cumsum([dense_macs(side) for side in (8, 12, 16, 16)]).tolist()
    (wide,) = follow([Metrics(1, 1, "none", image_size="8x16")], config, images=1)
    assert dense_macs(8) < wide.macs < dense_macs(12)


def test_the_relatives_cost_what_their_phases_come_to():
    (rows,) = read_rows(ROOT / "configs/tables/phases.yaml").values()
    task = {"model.embed_dim": 64, "model.num_heads": 2, "model.num_classes": 10, "train.epochs": 9,
            "train.warmup_dense_epochs": 0, "model.image_size": 24}  # fmt: skip
    costs = {row.name: run_costs(load(str(ROOT / "configs/cifar10.yaml"), {**task, **row.settings})) for row in rows}
    dense = [dense_macs(side) for side in (12, 20, 24)]
    assert costs["dense"].macs == dense[-1]
    assert math.isclose(costs["sizes"].macs, sum(dense) / 3)
    relative = {name: round(cost.macs / dense[-1], 2) for name, cost in costs.items()}
    assert relative == {"dense": 1, "skip": 0.82, "sizes": 0.65, "sizes and skip": 0.52, "growth": 0.74,
                        "random route": 0.7}  # fmt: skip
    route = dense[-1] - 7 * (block_macs(37) - block_macs(19))
    assert costs["random route"].macs == route


def train(job, tops, seconds):
    """Write what a finished training would have written."""
    phases = {epoch: phase for phase in plan_phases(job.config) for epoch in range(phase.first, phase.last + 1)}
    job.run.path.mkdir(parents=True)
    rows = [
        Metrics(epoch, phase.number, phase.tokens, 1.0, 1e-3, top1, 99.0, 100.0, seconds, side_text(phase.image_size))
        for (epoch, phase), top1 in zip(phases.items(), tops)
    ]
    write_metrics(job.run.metrics, rows)
    RunImages(1, {"train": 1000, "val": 100}, "").write(job.run.images)


ROWS = """
schedules:
  - none
  - {name: skip, tokens: 6(55%)+11}
  - {name: "skip, random", tokens: "6(55%,random)+11"}
  - {name: sizes, tokens: none, train.phases: [{epochs: 2, image_size: 8}, {epochs: 2}]}
controls:
  - 6(55%)+11
"""
TOPS = {  # of every seed, before it is moved by the seed's luck
    "none": [40, 50, 60, 61],
    "skip": [40, 55, 61, 61.2],
    "skip, random": [30, 40, 62, 58],
    "sizes": [30, 61, 61, 61],
}
NOISE = {"none": 0.0, "skip": 0.3, "skip, random": 1.0, "sizes": 0.0}


def experiment(folder, seeds=3, pairs=2):
    (folder / "rows.yaml").write_text(ROWS)
    groups = read_rows(folder / "rows.yaml")
    settings = {"train.epochs": 4, "train.warmup_dense_epochs": 0}
    found = Experiment.plan(QUICK, load(QUICK, settings), settings, groups, seeds, folder / "out", Rule(pairs=pairs))
    for job in found.jobs:
        name = str(job.variant)
        luck = job.seed + NOISE[name] * (-1) ** job.seed
        train(job, [top1 + luck for top1 in TOPS[name]], seconds=4.0 if name == "none" else 3.0)
    return found


def test_the_table_tells_costs_times_and_the_test(tmp_path):
    found = experiment(tmp_path)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["none", "sizes", "skip", "skip_random"]
    found.write()
    lines = found.table_file.read_text().splitlines()
    assert lines[0].endswith(
        "| not worse | multiplications | time | multiplications to dense top-1 | time to dense top-1 |"
    )
    cells = {line.split(" | ")[0]: line.strip(" |").split(" | ")[7:] for line in lines[2:6]}
    macs = 1 / (1 + read_results(tmp_path / "out" / "results.csv")[1].ideal_gain)
    assert cells["| `none`"][1:] == ["1.00", "1.00", "1.00", "1.00"]
    p = stats.ttest_1samp([0.5, -0.1, 0.5], popmean=-1, alternative="greater").pvalue
    assert cells["| skip"] == [
        f"not shown (p = {p:.3g})", f"{macs:.2f}", "0.75", f"{0.75 * macs:.2f} (2 of 3 seeds)",
        "0.56 (2 of 3 seeds)"]  # fmt: skip
    assert cells["| skip, random"][0].startswith("not shown (p = 0.9")
    assert cells["| skip, random"][3:] == ["not reached", "not reached"]
    sizes = (dense_macs(8) + dense_macs(16)) / (2 * dense_macs(16))
    early = dense_macs(8) / (2 * dense_macs(16))
    assert cells["| sizes"] == [
        "not worse by 1.0 (p < 0.001)", f"{sizes:.2f}", "0.75", f"{early:.2f}", "0.38"]  # fmt: skip
    assert lines[5].startswith("| sizes | 3 |  |  |  | 62.00 ± 1.00 | +0.00 (+0.00 to +0.00) |")  # no one speed
    text = found.table_file.read_text()
    assert "rejects a loss of 1.0 points of top-1 or more with p < 0.01" in text
    found = re.search(
        r"probability of (\d+)% with 3 pairs; 90% takes (\d+) \(standard deviation of a difference: ", text
    )
    sd = pooled_sd([[0.5, -0.1, 0.5], [-2.0, -4.0, -2.0], [0.0, 0.0, 0.0]])
    assert int(found[1]) == round(100 * power(3, sd, 1.0))
    assert power(int(found[2]), sd, 1.0) >= 0.9 > power(int(found[2]) - 1, sd, 1.0)
    assert "\n- skip: `6(55%)+11`\n" in text
    assert "\n- skip, random: `6(55%,random)+11`\n" in text
    assert "\n- sizes: `none`, `train.phases=[{epochs: 2, image_size: 8}, {epochs: 2}]`\n" in text
    results = {(r.name, r.seed): r for r in read_results(tmp_path / "out" / "results.csv")}
    assert results["skip, random", 0].reached_epoch == math.inf
    assert (results["skip", 0].reached_epoch, results["skip", 0].reached_seconds) == (3, 9.0)


def test_without_a_second_seed_nothing_is_tested(tmp_path):
    found = experiment(tmp_path, seeds=1)
    found.write()
    text = found.table_file.read_text()
    assert text.count("| no verdict: 1 of 2 pairs |") == 3
    assert "p <" not in text


def test_fewer_pairs_than_the_rule_asks_for_have_an_interval_and_no_verdict(tmp_path):
    experiment(tmp_path, seeds=3).write()
    said = (tmp_path / "out/table.md").read_text()
    assert said.count("not worse by 1.0 (p") >= 1
    (tmp_path / "more").mkdir()
    found = experiment(tmp_path / "more", seeds=3, pairs=6)
    found.write()
    text = found.table_file.read_text()
    assert text.count("| no verdict: 3 of 6 pairs |") == 3
    assert "(p " not in text
    assert re.search(r"\| [+-]\d\.\d\d \([+-]\d\.\d\d to [+-]\d\.\d\d\) \| no verdict: 3 of 6 pairs \|", text)
    assert " With fewer than 6 pairs nothing is said. Where nothing is lost it shows that with a " in text
    assert re.search(r"\d+% with 3 pairs, \d+% with 6 pairs; 90% takes \d+ ", text)


def test_runs_that_do_not_say_their_images_have_no_costs(tmp_path):
    found = experiment(tmp_path)
    for job in found.jobs:
        job.run.images.unlink()
    found.write()
    assert "multiplications" not in found.table_file.read_text()
    assert {result.cost for result in read_results(tmp_path / "out" / "results.csv")} == {None}


def test_measured_speeds_decide_time_where_they_are_of_all_steps(tmp_path):
    found = experiment(tmp_path)
    speeds = {"none": 100.0, "6(55%)+11": 160.0, "6(55%,random)+11": 200.0, "none at 8": 400.0}
    for known, times, where in (
        (speeds, {"none": 1.0, "skip": 0.625, "skip, random": 0.5, "sizes": 0.625}, "Training speed: here."),
        (
            {**speeds, "none at 8": None},
            {"none": 1.0, "skip": 0.75, "skip, random": 0.75, "sizes": 0.75},
            "of the trainings themselves",
        ),
    ):
        img_s = {spec: speed for spec, speed in known.items() if speed}
        (tmp_path / "out" / "speeds.json").write_text(json.dumps({"img_s": img_s, "where": "here"}))
        found.write()
        assert {r.name or "none": r.time for r in read_results(tmp_path / "out" / "results.csv")} == times
        assert where in found.table_file.read_text()


def test_the_plots_are_of_all_that_is_shown(tmp_path):
    found = experiment(tmp_path)
    found.write()
    found.draw()
    for name in ("costs", "cost-curves"):
        pixels = image.imread(tmp_path / "out" / f"{name}.png")[..., :3]
        for colour in ([0, 0, 0], [0x00, 0x72, 0xB2], [0xD5, 0x5E, 0x00]):  # dense, and two rows
            assert np.all(np.abs(pixels - np.array(colour) / 255) < 0.02, axis=-1).sum() > 50, (name, colour)


def test_rows_that_would_share_a_folder_need_names(tmp_path):
    config = load(QUICK)
    rows = [Variant("6(55%)+11", name="a b"), Variant("6(50%)+11", name="A-B")]
    with pytest.raises(
        UserError, match=r"the rows a b and A-B would be trained in one folder; give one of them a name:"
    ):
        Experiment.plan(QUICK, config, {}, {"rows": rows}, 1, tmp_path, Rule())
    for row in (Variant("none", ("data.root=" + "x" * 300,)), Variant("6(55%)+11", name="—")):
        with pytest.raises(UserError, match=r"needs a name of letters and digits; add name:"):
            Experiment.plan(QUICK, config, {}, {"rows": [row]}, 1, tmp_path, Rule())


def test_a_name_is_shown_and_makes_no_other_variant(tmp_path):
    (tmp_path / "rows.yaml").write_text(
        "a: [{tokens: none, name: dense}, {tokens: none, train.epochs: 3, name: short}]"
    )
    dense, short = read_rows(tmp_path / "rows.yaml")["a"]
    assert (dense, str(dense), str(short)) == (DENSE, "dense", "short")
    planned = Experiment.plan(QUICK, load(QUICK), {}, {"a": [dense, short]}, 1, tmp_path / "out", Rule())
    assert [(str(job.variant), job.run.path.parent.name) for job in planned.jobs] == [
        ("dense", "dense"), ("short", "short")]  # fmt: skip


@pytest.mark.parametrize("name", ["'a|b'", "''", "7", f"'{'x' * 61}'", "'`a`'", '"a\\nb"'])
def test_a_name_that_would_break_the_table_is_refused(tmp_path, name):
    (tmp_path / "rows.yaml").write_text(f"a: [{{tokens: none, name: {name}}}]")
    with pytest.raises(UserError, match="a row's name is a text of up to 60 characters"):
        read_rows(tmp_path / "rows.yaml")


def test_phases_are_read_as_a_list_and_read_back(tmp_path):
    phases = [{"epochs": 2, "tokens": "<3(50%,random)+10", "image_size": 16}, {"epochs": 1, "tokens": "none"}]
    (tmp_path / "rows.yaml").write_text(
        "a:\n  - name: growth\n    tokens: none\n    train.phases:\n"
        '      - {epochs: 2, tokens: "<3(50%,random)+10", image_size: 16}\n      - {epochs: 1, tokens: none}\n'
    )
    ((row,),) = read_rows(tmp_path / "rows.yaml").values()
    assert row.settings == {"model.tokens": "none", "train.phases": phases}
    assert row.has_phases
    assert not DENSE.has_phases


def test_rows_that_ask_no_predictor_leave_its_settings_out(tmp_path):
    """A recipe of DynamicViT has a dense row to compare with, as any other."""
    recipe = str(ROOT / "configs/dynamicvit_quick.yaml")
    given = {"train.init": "a.ckpt", "predictor.teacher": "a.ckpt"}
    rows = [Variant("none"), Variant("4,7,10(30%,30%,30%,predictor)")]
    dense, masked = Experiment.plan(recipe, load(recipe, given), given, {"a": rows}, 1, tmp_path, Rule()).jobs
    assert dense.config.predictor == PredictorConfig()
    assert {"predictor.teacher=null", "predictor.frozen_epochs=0", "predictor.backbone_lr=1.0"} <= set(dense.command)
    assert (masked.config.predictor.teacher, masked.config.predictor.frozen_epochs) == ("a.ckpt", 2)
