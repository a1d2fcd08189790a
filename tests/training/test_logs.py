"""What a training says before it starts."""

import logging
from pathlib import Path

import pytest

from src.data.datasets import Dataset, Split
from src.runs import Metrics
from src.runtime.distributed import SINGLE_PROCESS
from src.training.checkpoint import TrainingProgress
from src.training.logs import log_epoch, log_setup
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
            config, Dataset(("a", "b"), {"train": split, "val": split}), SINGLE_PROCESS, TrainingProgress(),
        )  # fmt: skip
    assert ("1.5 times the bytes" in caplog.text) == warned


@pytest.mark.parametrize(
    ("waiting", "said"), [(0.3, "30% of the time waiting for images: raise data.workers"), (0.04, "")]
)
def test_a_training_that_waits_for_images_is_told(caplog, waiting, said):
    row = Metrics(3, 1, "none", loss=1.0, lr=1e-3, top1=50.0, top5=90.0, img_s=100.0, seconds=1.0)
    with caplog.at_level(logging.INFO, logger="skipvit"):
        log_epoch(row, 10, skipped=0, waiting=waiting, left=", 1:00")
    assert caplog.messages[0].endswith(f"left, {said}" if said else "left")
