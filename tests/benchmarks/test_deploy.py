"""Latency of exported files, and whether a schedule pays."""

import json
from functools import partial

import pytest

from src.benchmarks import deploy, pays
from src.benchmarks.deploy import Case
from src.benchmarks.timing import Timing, gain_text, take_turns
from tests.helpers.commands import run_module

SMALL = [
    "model.name=skipvit_ti_16_224", "model.depth=3", "model.patch_size=4", "model.embed_dim=32", "model.num_heads=2",
    "model.num_classes=10",
]  # fmt: skip


def test_files_take_turns_and_the_first_run_of_each_is_not_timed():
    calls = []

    def run(case):
        calls.append(case.spec)
        return float(len(calls))

    dense, sparse = (Case("onnxruntime", "float32", 1, spec) for spec in ("none", "6(55%)+11"))
    turns = {case: partial(deploy.turn, partial(run, case), 2) for case in (dense, sparse)}
    seconds = take_turns(turns, rounds=2)
    assert calls == 3 * ["none"] + 6 * ["6(55%)+11"] + 3 * ["none"]
    assert seconds == {dense: [[2, 3], [11, 12]], sparse: [[5, 6], [8, 9]]}


def test_a_row_compares_with_dense_in_the_same_place_round_by_round():
    sparse = Case("openvino", "int8", 16, "6(55%)+11")
    assert sparse.dense == Case("openvino", "int8", 16, "none")
    seconds = {sparse: [[1.0, 1.0], [2.0, 4.0], [2.0, 2.0]], sparse.dense: [[2.0, 2.0], [3.3, 3.3], [2.4, 2.4]]}
    row = deploy._row(sparse, seconds, 0.27)
    assert (row["p50_ms"], row["p95_ms"], row["img_s"]) == (2000, 4000, 8)
    assert row["gain"] == pytest.approx(0.2)
    assert (row["gain_low"], row["gain_high"]) == pytest.approx((0.1, 1))
    assert (row["ideal_gain"], row["pays"]) == (0.27, "yes")
    assert gain_text(row) == "+20.0% (+10.0 to +100.0)"
    assert deploy._row(sparse.dense, seconds, 0)["pays"] is None


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ([0.1, 0.2, 0.3], "yes"),
        ([-0.1, -0.2, 0.0], "no"),
        ([-0.1, 0.1, 0.2, 0.2], "unclear"),
        ([0.1, 0.1], "unclear"),
        ([0.1, 1.5, 0.9], "unclear"),  # more than multiply-accumulates allow
    ],
)
def test_it_pays_where_all_rounds_say_so(gains, verdict):
    assert deploy.pays(gains, ideal=0.27) == verdict


def test_what_does_not_pay_is_said():
    row = {"runtime": "mindir", "precision": "float32", "batch_size": 1, "spec": "6(55%)+11"}
    said = deploy._sentences(
        [{**row, "pays": "no"}, {**row, "pays": "yes"}, {**row, "batch_size": 4, "pays": "unclear"}]
    )
    assert said == [
        "Skipping does not pay in: mindir float32, batch 1, `6(55%)+11`.",
        "Whether it pays cannot be told in: mindir float32, batch 4, `6(55%)+11`.",
    ]
    assert deploy._sentences([{**row, "pays": "yes"}, {**row, "pays": None}]) == ["Skipping pays in every row."]


@pytest.mark.parametrize(("shared", "seconds"), [(True, (3.0, 4.0)), (False, (2.0, 2.0))])
def test_images_are_prepared_on_the_same_cores_or_meanwhile(shared, seconds):
    assert pays._together(Timing((1.0, 2.0), (1.0, 2.0)), 2.0, shared).seconds == seconds


def test_a_training_that_waits_for_images_is_told_so():
    report = {
        "spec": "6(55%)+11", "pays": "no", "gain": 0.0, "ideal_gain": 0.27, "shared": False, "input_bound": True,
        "masked": False,
        "data": {"img_s": 500.0, "workers": 2}, "step_img_s": [1000.0, 1250.0], "cpu_ms": 4.0,
    }  # fmt: skip
    said = pays.answer(report)
    assert "it does not pay, +0.0% of an ideal +27.0%; images come while the device trains." in said
    assert "Input-bound: images come at 500 a second, the step takes 1250; that keeps 5.0 cores busy" in said
    assert "no faster than dense" not in said
    assert "all tokens in every block, which is no faster than dense." in pays.answer({**report, "masked": True})
    assert "Input-bound" not in pays.answer({**report, "input_bound": False})


@pytest.mark.slow
def test_files_are_measured_in_all_that_open_them(tmp_path):
    options = [
        "--deploy",
        "--specs",
        "1(50%)+3",
        "--image_size",
        32,
        "--batch_size",
        4,
        "--pairs",
        2,
        "--json",
        "d.json",
    ]
    done = run_module("src.tools.benchmark", *options, *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "d.json").read_text())["rows"]
    places = [(row["runtime"], row["precision"], row["batch_size"]) for row in rows if row["spec"] == "1(50%)+3"]
    expected = [(runtime, one) for runtime, precisions in deploy.RUNTIMES.items() for one in precisions]
    assert places == [(*place, size) for place in expected for size in (1, 4)]
    for row in rows:
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert (row["pays"] is None) == (row["spec"] == "none")
    assert "onnxruntime: " in done.stdout
    assert "openvino: " in done.stdout


@pytest.mark.slow
def test_whether_a_schedule_pays_is_measured(tmp_path, photos):
    config = tmp_path / "a.yaml"
    config.write_text(f"data: {{root: {photos}, batch_size: 4, workers: 1}}\nmodel: {{image_size: 32}}\n")
    options = ["--pays", "1(50%)+3", "--pairs", 2, "--config", config, *SMALL, "runtime.fused_kernels=off"]
    done = run_module("src.tools.plan", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| img/s | `none` | `1(50%)+3` | gain (rounds) |" in done.stdout
    assert "images are prepared on the cores that train" in done.stdout
