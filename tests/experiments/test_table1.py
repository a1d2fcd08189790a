"""The experiments: rows, statistics, and the command that trains them and does nothing twice."""

import csv
import json
import math
import os
import shlex
import signal
import subprocess

import pytest

from src.errors import UserError
from src.experiments.plots import pareto
from src.experiments.results import TrainingResult, read_results, summarise, write_results
from src.experiments.variants import Variant, read_rows
from src.runtime.environment import share_cores
from src.schedules.paper import TABLE1
from tests.helpers.commands import ROOT, module, run_here, run_module

TINY = ["model.depth=3", "model.embed_dim=16", "model.num_heads=2", "train.warmup_dense_epochs=0",
        "runtime.fused_kernels=off", "data.batch_size=6", "data.workers=1", "train.report=false"]  # fmt: skip


def test_the_shipped_rows_are_the_papers_and_the_ablations():
    groups = read_rows(ROOT / "configs" / "tables" / "table1.yaml")
    assert [row.tokens for row in groups["table 1"]] == list(TABLE1)
    assert groups["dense warm-up"][1] == Variant("6(55%)+11", ("train.warmup_dense_epochs=0",))
    assert [row.tokens for row in groups["skip distance"]] == [f"6(55%)+{block}" for block in range(8, 13)]
    assert groups["ranking"][1].tokens == "6(55%,random)+11"


def test_a_row_with_a_list_or_a_long_value_is_the_same_row_when_it_is_read_back(tmp_path):
    long = "x" * 300
    (tmp_path / "rows.yaml").write_text(f"a: [{{tokens: none, data.scale: [0.5, 1.0], data.root: {long}}}]")
    ((variant,),) = read_rows(tmp_path / "rows.yaml").values()
    assert variant.overrides == (f"data.root={long}", "data.scale=[0.5, 1.0]")
    write_results(tmp_path / "r.csv", [TrainingResult("none", shlex.join(variant.overrides), 0, 1, 1, 1, 1, 1, 0)])
    (result,) = read_results(tmp_path / "r.csv")
    assert result.variant == variant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- none", "must be a mapping of groups to lists of rows"),
        ("a: {b: c}", "must be a mapping of groups to lists of rows"),
        ("a: [{train.epochs: 3}]", "a row is a schedule, or a mapping with tokens, not {'train.epochs': 3}"),
        ("a: [6(55%+11]", r"tokens spec '6\(55%\+11': it is not of the notation"),
        ("a: [", "line 1: is not valid YAML: "),
    ],
)
def test_a_bad_file_of_rows_is_refused(tmp_path, text, message):
    (tmp_path / "rows.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_rows(tmp_path / "rows.yaml")


def result(tokens, seed, top1, img_s=100.0, overrides=""):
    return TrainingResult(tokens, overrides, seed, 10, top1, top1 + 1, img_s, 12.5, 0.27)


def test_statistics_are_of_pairs_of_one_seed():
    results = [result("none", 0, 90.0), result("none", 1, 94.0), result("none", 2, 92.0)]
    results += [result("6(55%)+11", 0, 91.0, 120.0), result("6(55%)+11", 1, 96.0, 130.0)]
    results += [result("6(55%)+11", 0, 80.0, 110.0, "train.warmup_dense_epochs=0")]
    found = summarise(results)
    dense, skip = found[Variant("none")], found[Variant("6(55%)+11")]
    assert (dense.seeds, dense.top1, dense.sd, dense.difference, dense.gain) == (3, 92.0, 2.0, None, None)
    assert (skip.seeds, skip.difference) == (2, 1.5)
    assert math.isclose(skip.gain, 0.25)
    assert math.isclose(skip.margin, 12.7062047 * math.sqrt(0.5) / math.sqrt(2), rel_tol=1e-6)
    disturbed = [result("none", 3, 92.0), result("6(55%)+11", 3, 92.0, 10.0)]
    assert math.isclose(summarise(results + disturbed)[Variant("6(55%)+11")].gain, 0.2)
    other = found[Variant("6(55%)+11", ("train.warmup_dense_epochs=0",))]
    assert (other.difference, other.margin, other.sd) == (-10.0, None, None)


def test_results_read_back(tmp_path):
    results = [
        result("none", 0, 90.25),
        result("6(55%,random)+11", 3, 12.5, 99.5, "train.seed=1 'data.scale=[0.5, 1.0]'"),
    ]
    write_results(tmp_path / "results.csv", results)
    assert read_results(tmp_path / "results.csv") == results
    assert results[1].variant.settings == {
        "train.seed": 1, "data.scale": [0.5, 1.0], "model.tokens": "6(55%,random)+11"}  # fmt: skip
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"are not a results\.csv of"):
        read_results(tmp_path / "other.csv")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not bind processes to cores")
@pytest.mark.parametrize("number", [1, 2, 3, 1000])
def test_trainings_at_a_time_share_the_cores(number):
    shares = share_cores(number)
    assert len(shares) == number
    assert {len(share) for share in shares} == {len(os.sched_getaffinity(0)) // number}
    bound = [core for share in shares for core in share]
    assert len(set(bound)) == len(bound)
    assert set(bound) <= os.sched_getaffinity(0)


def test_the_front_holds_what_nothing_beats():
    assert pareto([(1, 5), (2, 4), (2, 3), (3, 1), (1, 4), (3, 1)]) == [(1, 5), (2, 4), (3, 1)]


@pytest.mark.slow
def test_a_table_goes_on_and_does_nothing_twice(tmp_path, photos):
    options = ["--config", ROOT / "configs/quickstart.yaml", "--specs", "1(50%,random)+3", "--seeds", "2",
               "--output", "out", f"data.root={photos}", *TINY]  # fmt: skip
    command, how = module("src.tools.table1", *options, "train.epochs=2", cwd=tmp_path)
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)
    for line in job.stdout:
        if line.startswith("none, seed 0: top-1"):
            break
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=120)
    assert job.returncode == 128 + signal.SIGINT
    assert said.endswith("\nSIGINT: stopped; the same command resumes\n")
    assert len((tmp_path / "out" / "results.csv").read_text().splitlines()) == 2
    (trained,) = read_results(tmp_path / "out" / "results.csv")
    part = run_module("src.tools.table1", *options, "train.epochs=2", "--finished", cwd=tmp_path)
    assert (part.returncode, part.stdout.count("\n| `"), part.stdout.count("\n| `none` | 1 |")) == (0, 1, 1)
    assert read_results(tmp_path / "out" / "results.csv") == [trained]
    assert (tmp_path / "out" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    first = (tmp_path / "out/none/seed0/checkpoints/last.ckpt").stat().st_mtime_ns

    done = run_module("src.tools.table1", *options, "--jobs", "2", "train.epochs=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (cores,) = {json.loads(file.read_text())[-1]["hardware"].split(", ")[1]
                for file in (tmp_path / "out").glob("1_50_random_3/seed?/environment.json")}  # fmt: skip
    assert cores == f"{len(share_cores(2)[0] or share_cores(1)[0]) or os.cpu_count()} cores"  # one core is not shared
    assert "4 trainings, of which 1 are done, in out" in done.stdout
    assert (tmp_path / "out/none/seed0/checkpoints/last.ckpt").stat().st_mtime_ns == first
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["tokens"], row["seed"]) for row in rows] == [
        (spec, seed) for seed in "01" for spec in ("none", "1(50%,random)+3")]  # fmt: skip
    for row in rows:
        name = "none" if row["tokens"] == "none" else "1_50_random_3"
        with (tmp_path / "out" / name / f"seed{row['seed']}" / "metrics.csv").open() as file:
            metrics = list(csv.DictReader(file))
        assert float(row["top1"]) == float(metrics[-1]["top1"])
        assert float(row["best_top1"]) == max(float(line["top1"]) for line in metrics)
    table = (tmp_path / "out" / "table.md").read_text()
    assert table in done.stdout
    assert table.count("\n| `") == 2
    for name in ("accuracy.png", "curves.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")

    trained = read_results(tmp_path / "out" / "results.csv")
    timed = run_module("src.tools.table1", *options, "train.epochs=2", "--measure", cwd=tmp_path)
    assert timed.stdout.startswith("4 trainings, of which 4 are done, in out\n")
    assert "Training speed: 15 rounds of 3 steps in turns, batch 6, hardware: " in timed.stdout
    speeds = json.loads((tmp_path / "out" / "speeds.json").read_text())["img_s"]
    measured = read_results(tmp_path / "out" / "results.csv")
    assert [(own.img_s, own.top1, own.cost) for own in measured] == [
        (speeds[own.tokens], own.top1, own.cost) for own in trained]  # fmt: skip
    for own in measured:
        assert own.time == pytest.approx(speeds["none"] / speeds[own.tokens], abs=1e-4)
    assert len(set(speeds.values())) == 2
    kept = run_module("src.tools.table1", *options, "train.epochs=2", "--finished", cwd=tmp_path)
    assert (
        kept.stdout == "4 trainings, of which 4 are done, in out\n" + timed.stdout[timed.stdout.index("| schedule") :]
    )
    other = run_module("src.tools.table1", *options, "train.epochs=3", cwd=tmp_path)
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "seed0 was trained under another configuration, train.epochs=2 and not 3; set it so, or name" in other.stderr


def test_a_row_that_cannot_be_trained_is_refused_before_any_is(tmp_path):
    """tests/cli/test_refusals.py has the others."""
    (tmp_path / "deeper.yaml").write_text("rows: [{tokens: none, model.depth: 13}]")
    quick = ["--config", ROOT / "configs/quickstart.yaml"]
    for options, message in (
        ([*quick, "--rows", "deeper.yaml", "--measure"], "--measure compares schedules of one model and data; the row"),
        ([*quick, "--specs", "none", "train.epochs=0"], "train.epochs"),
        ([*quick, "--specs", "none", "--pairs", "1"], "--pairs 1: a test takes at least 2 pairs"),
        ([*quick, "--specs", "none", "--output", "deeper.yaml/out"], "--output deeper.yaml/out cannot be made: Not a"),
    ):
        done = run_here("src.tools.table1", "--output", "out", *options, cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
        assert not (tmp_path / "out").exists()
