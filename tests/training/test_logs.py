"""What a training says before it starts."""

import logging
from pathlib import Path

import pytest

from src.data.datasets import Dataset, Split
from src.runtime.distributed import SINGLE_PROCESS
from src.schedules import plan_phases
from src.training.checkpoint import TrainingProgress
from src.training.logs import log_setup
from tests.helpers.configs import load


@pytest.mark.parametrize(
    ("device", "act", "warned"),
    [("Ascend", "gelu_erf", True), ("Ascend", "gelu_tanh", False), ("CPU", "gelu_erf", False)],
)
def test_what_erf_costs_on_ascend_is_said(tmp_path, caplog, device, act, warned):
    path = tmp_path / "config.yaml"
    path.write_text("model: {num_classes: 2}")
    config = load(path, [f"runtime.device_target={device}", f"model.act={act}"])
    split = Split(Path("data"), "train", 8)
    with caplog.at_level(logging.INFO, logger="skipvit"):
        log_setup(
            config, Dataset(("a", "b"), {"train": split, "val": split}), SINGLE_PROCESS, plan_phases("none", 1, 0),
            TrainingProgress(),
        )  # fmt: skip
    assert ("1.5 times the bytes" in caplog.text) == warned
