"""The recipes of fine-tuning: EViT's values, and a network of digits that goes over to another task and size."""

import csv
import json

import pytest

from src.schedules.phases import plan_phases
from src.training.optimizer import learning_rates, peak_lr
from tests.helpers.commands import ROOT, run_here
from tests.helpers.configs import load

SMALL = ["model.depth=2", "model.tokens=1(50%)+2", "runtime.fused_kernels=off", "train.report=false"]


def test_the_recipe_of_evit_is_what_its_code_does():
    """30 epochs from 2e-5·batch/512 to 2e-6 without warm-up, at the base keep rate from the first step."""
    config = load(ROOT / "configs/finetune_s.yaml", ["data.batch_size=128", "train.accumulate=2"])
    assert peak_lr(config, processes=8) == pytest.approx(8e-5)
    rates = learning_rates(config, 10, processes=8)
    assert (len(rates), rates[0]) == (300, pytest.approx(8e-5))
    assert rates[-1] == pytest.approx(2e-6, rel=0.01)
    (phase,) = plan_phases(config)
    assert (phase.first, phase.last, phase.tokens) == (1, 30, "4,7,10(30%,30%,30%)+fused")
    assert (config.model.drop_path_rate, config.optimizer.weight_decay, config.train.ema_decay) == (0, 1e-6, 0.99996)


@pytest.mark.long
def test_digits_go_over_to_even_and_odd_at_another_size(tmp_path):
    """From a run and from its converted file; from random weights the same training is far worse."""
    quick = ["--config", ROOT / "configs/quickstart.yaml", *SMALL, "train.epochs=10", "train.warmup_dense_epochs=0"]
    done = run_here("train", *quick, "run.dir=digits", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    best = tmp_path / "digits/checkpoints/best.ckpt"
    done = run_here("src.tools.convert", best, "digits.safetensors", "--to", "timm", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    top1 = {}
    for name, init in (("own", best), ("timm", "digits.safetensors"), ("random", "null")):
        given = [*SMALL, "train.epochs=2", f"train.init={init}", f"run.dir={name}"]
        done = run_here("train", "--config", ROOT / "configs/finetune_quick.yaml", *given, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with (tmp_path / name / "metrics.csv").open() as file:
            top1[name] = float(list(csv.DictReader(file))[-1]["top1"])
    assert top1["own"] == top1["timm"] > top1["random"] + 10
    assert len(json.loads((tmp_path / "own/init.json").read_text())["remarks"]) == 2
