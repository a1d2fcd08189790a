"""The benchmark: its arithmetic, and a short run of it."""

import json

import pytest

from src.benchmarks import data, measure, peers, run
from src.benchmarks.settings import benchmark_config, benchmark_settings
from src.benchmarks.timing import Timing, interleave, share_of_ideal
from src.config import Config, ModelConfig, PhaseConfig, TrainConfig
from src.errors import UserError
from src.schedules import plan_phases
from tests.helpers.commands import run_module
from tests.helpers.configs import load


def test_medians_spread_and_gain():
    timing = Timing(seconds=(1.0, 2.0, 4.0), base=(2.0, 3.0, 4.0))
    assert timing.median == 2.0
    assert timing.spread == pytest.approx((3.0 - 1.5) / 2 / 2.0)
    assert timing.gains == pytest.approx((1.0, 0.5, 0.0))
    assert timing.gain == pytest.approx(0.5)


def test_share_of_ideal():
    assert share_of_ideal(0.27, 0.27) == 1.0
    assert share_of_ideal(0.132, 0.27) == pytest.approx(1.132 / 1.27)


def test_a_row_of_the_table():
    train = Timing(seconds=(2.0, 2.0, 2.0), base=(3.0, 3.0, 3.0))
    timings = {"train x": train, "infer x": Timing((1.0,), (1.5,)), "tokens x": Timing((0.1,), (0.1,))}
    sizes = peers.PeerSizes(224, 16, 384, 12, 6, 1000, batch_size=8)
    row = measure._row("x", timings, 0.25, sizes)
    assert (row["train_img_s"], row["infer_img_s"]) == (4.0, 8.0)
    assert row["gain"] == row["infer_gain"] == pytest.approx(0.5)
    assert row["share_of_ideal"] == pytest.approx(1.2)
    assert row["select_share"] == pytest.approx(0.05)


def test_contestants_take_turns_and_steps_are_as_many_as_asked():
    now, calls = [0.0], []

    def contestant(name, seconds):
        def run():
            calls.append(name)
            now[0] += seconds

        return run

    runs = {"none": contestant("none", 2.0), "fast": contestant("fast", 1.0)}
    timings = interleave(runs, rounds=3, steps=4, base="none", clock=lambda: now[0])
    assert calls == 5 * ["none"] + 5 * ["fast"] + 5 * ["fast"] + 5 * ["none"] + 5 * ["none"] + 5 * ["fast"]
    assert timings["fast"].seconds == (1.0, 1.0, 1.0)
    assert timings["fast"].gain == pytest.approx(1.0)
    assert timings["none"].gain == pytest.approx(0.0)


def test_a_missing_peer_is_left_out_with_a_line(monkeypatch, caplog):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert not peers.is_installed("transformers")
    assert "pip install torch transformers" in caplog.text
    assert peers.is_installed("mindcv")


def test_the_data_pipeline_is_measured_with_one_worker_and_more(tmp_path, photos):
    file = tmp_path / "config.yaml"
    file.write_text(f"data: {{root: {photos}, batch_size: 4, workers: 2}}\nmodel: {{image_size: 32}}")
    report = data.measure_data(load(file), rounds=1, rate=500, peers=[])
    one, two = report["rows"]
    assert (one["name"], two["name"]) == ("1 worker", "2 workers")
    assert one["times_one"] == 1
    assert one["img_s"] > 0
    assert two["times_one"] == pytest.approx(two["img_s"] / one["img_s"])
    assert (one["cpu_ms"] > 0, two["cpu_ms"]) == (True, None)
    assert report["data"] == {"img_s": two["img_s"], "workers": 2}
    assert report["cores"] == pytest.approx(0.5 * one["cpu_ms"])
    assert report["environment"]["images"] == 16
    assert "A training at 500 img/s keeps" in data.table(report)


def test_timms_pipeline_wants_what_it_knows(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(data, "is_installed", lambda kind: True)
    file = tmp_path / "config.yaml"
    file.write_text(f"data: {{root: {photos}, batch_size: 4, workers: 1}}\nmodel: {{image_size: 32}}")
    for override, what in (("data.auto_augment=autoaug", "no counterpart"), ("data.color_jitter=0.4", "color_jitter")):
        with pytest.raises(UserError, match=f"--peer timm .*{what}"):
            data.measure_data(load(file, [override]), rounds=1, rate=500, peers=["timm"])


@pytest.mark.long
def test_a_short_run(tmp_path):
    done = run_module(
        "src.tools.benchmark",
        "--specs", "1(50%)+3", "none", "1 (50%) + 3", "--model", "skipvit_ti_16_224",
        "--image_size", 32, "--batch_size", 4, "--pairs", 3,
        "--json", "b.json", "--markdown", "b.md", "--png", "b.png", "--peer", "mindcv", "model.depth=3",
        "runtime.fused_kernels=off",
        "model.patch_size=4", "model.embed_dim=32", "model.num_heads=2", "model.num_classes=10", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "b.json").read_text())
    dense, sparse = report["rows"]
    assert (dense["spec"], sparse["spec"]) == ("none", "1(50%)+3")
    assert dense["gain"] == dense["ideal_gain"] == 0.0
    assert sparse["share_of_ideal"] == pytest.approx((1 + sparse["gain"]) / (1 + sparse["ideal_gain"]))
    for row in report["rows"]:
        for key in ("train_img_s", "infer_img_s", "peak_memory_mb", "compile_s", "compile_cached_s"):
            assert row[key] > 0
    assert dense["select_share"] == 0
    assert sparse["select_share"] > 0  # no upper limit: it is a ratio of two measured times, of a tiny network
    assert {peer["name"] for peer in report["peers"]} == {"train MindCV float32"}
    assert {"hardware", "mindspore", "mindcv", "date", "batch_size"} <= report["environment"].keys()
    assert "`1(50%)+3`" in (tmp_path / "b.md").read_text()
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.json", "b.md", "b.png"]


def test_a_run_gains_by_its_phases_and_their_epochs():
    """Of 10 epochs, 4 at half the time and 1 at a quarter; in the second round all but dense take twice as long."""
    model = ModelConfig(image_size=32, patch_size=8, depth=2, embed_dim=8, num_heads=2)
    listed = [{"epochs": 4, "image_size": 16}, {"epochs": 1, "tokens": "1(50%)+2"}, {"epochs": 5}]
    config = Config(model=model, train=TrainConfig(phases=tuple(PhaseConfig(**phase) for phase in listed)))
    base = (4.0, 4.0)
    seconds = {"none at 16": (2.0, 4.0), "1(50%)+2 at 32": (1.0, 2.0), "none at 32": base}
    timings = {name: Timing(times, base) for name, times in seconds.items()}
    gains = run.gains_of_run(plan_phases(config), timings)
    assert gains == pytest.approx([10 * 4 / (4 * 2 + 1 + 5 * 4) - 1, 10 * 4 / (4 * 4 + 2 + 5 * 4) - 1])


@pytest.mark.slow
def test_a_run_is_measured_by_its_phases(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "model: {name: skipvit_ti_16_224, image_size: 32, patch_size: 8, depth: 3, embed_dim: 32, num_heads: 2}\n"
        "data: {batch_size: 4}\n"
        "train: {phases: [{epochs: 6, image_size: 16}, {epochs: 3, tokens: 1(50%)+3}, {epochs: 1}]}"
    )
    options = ["--config", "run.yaml", "--pairs", 3, "--json", "b.json", "runtime.fused_kernels=off"]
    done = run_module("src.tools.benchmark", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "b.json").read_text())
    assert [(row["spec"], row["image_size"], row["epochs"]) for row in report["rows"]] == [
        ("none", "32", 1), ("none", "16", 6), ("1(50%)+3", "32", 3)]  # fmt: skip
    assert report["rows"][0]["gain"] == 0
    measured = report["run"]
    assert measured["epochs"] == 10
    assert measured["gain_low"] <= measured["gain"] <= measured["gain_high"]
    assert measured["share_of_ideal"] == pytest.approx((1 + measured["gain"]) / (1 + measured["ideal_gain"]))
    assert "the whole run of 10 epochs: " in done.stdout


def test_mistakes_get_one_line(tmp_path):
    done = run_module("src.tools.benchmark", "--specs", "6(55)", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: tokens spec '6(55)'")


def test_a_configuration_decides_what_the_options_leave_open(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "model: {name: skipvit_ti_16_224, image_size: 32, patch_size: 4}\ndata: {batch_size: 8, mixup: 0.8}\n"
        "train: {amp_level: O2, ema_decay: 0.9}\nruntime: {device_target: Ascend}"
    )
    nothing = dict.fromkeys(("model", "image_size", "batch_size", "precision"))
    config = benchmark_config(tmp_path / "a.yaml", benchmark_settings(nothing, True))
    assert (config.model.name, config.model.image_size, config.data.batch_size) == ("skipvit_ti_16_224", 32, 8)
    assert (config.train.amp_level, config.runtime.device_target) == ("O2", "Ascend")
    assert (config.data.mixup, config.train.ema_decay) == (0, None)
    given = {**nothing, "image_size": 64, "precision": "float32"}
    config = benchmark_config(tmp_path / "a.yaml", benchmark_settings(given, True))
    assert (config.model.image_size, config.data.batch_size, config.train.amp_level) == (64, 8, "O0")
    config = benchmark_config(tmp_path / "a.yaml", benchmark_settings(nothing, False))
    assert (config.model.image_size, config.data.batch_size, config.runtime.device_target) == (224, 16, "CPU")


def test_no_peer_has_an_lvvit(tmp_path):
    (tmp_path / "a.yaml").write_text("model: {name: lvvit_ti_16_224}")
    assert benchmark_config(tmp_path / "a.yaml", {}).model.name == "lvvit_ti_16_224"
    assert benchmark_config(tmp_path / "a.yaml", {}, specs=["none", "4,7(30%,30%,predictor)"]).model.predictors == 2
    with pytest.raises(UserError, match="--peer mindcv has a ViT to measure beside ours, and no LV-ViT; leave it out"):
        benchmark_config(tmp_path / "a.yaml", {}, ["mindcv"])
