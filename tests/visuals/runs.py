"""Run folders as trainings leave them, for tests of the report."""

import math
from dataclasses import replace

from PIL import Image

from src.config import with_classes
from src.models import from_config
from src.runs import RunFolder
from src.runs.metrics import Metrics
from src.training.checkpoint import save_weights
from tests.helpers.commands import ROOT
from tests.helpers.configs import load

MODEL = ["model.image_size=16", "model.embed_dim=16", "model.num_heads=2", "model.depth=4", "data.workers=1"]
NASTY = '<b>&amp;"x"</b>'
ROWS = (
    Metrics(1, 1, "none", 2.300001, 1e-4, 20.1, 90.0, None, 9.1),
    Metrics(2, 1, "none", 2.100002, 2e-4, None, None, 810.0, 8.2),
    Metrics(3, 2, "2(50%)+4", 1.900003, 3e-4, 33.33, 91.0, 903.0, 7.3),
    Metrics(4, 2, "2(50%)+4", math.nan, 2e-4, 60.44, 92.0, 1004.0, 6.4),
    Metrics(5, 2, "2(50%)+4", 1.500005, 1e-4, 55.55, 93.0, 1105.0, 5.5),
)


def write_images(root):
    """Nine training and nine validation images of three classes, one of them named in HTML."""
    for label, name in enumerate((NASTY.replace("/", "∕"), "bee", "cat")):
        for split in ("train", "val"):
            (root / split / name).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (20, 24), (80 * label, 40 * number, 99)).save(root / split / name / f"{number}.png")
    return root


def write_run(folder, images, epochs, *overrides, best=True):
    """A run folder as a training leaves it, after so many epochs."""
    quick = ROOT / "configs/quickstart.yaml"
    config = load(quick, [*MODEL, f"data.root={images}", "model.tokens=2(50%)+4", "train.epochs=5", *overrides])
    config = with_classes(replace(config, run=replace(config.run, dir=str(folder))), 3)
    run = RunFolder.create(config, "test", sorted(path.name for path in (images / "val").iterdir()))
    run.add_environment({"hardware": "A <machine>", "mindspore": "2.10.0", "date": "2026-11-20"})
    for row in ROWS[:epochs]:
        run.write_epoch(row)
    if best:
        save_weights(run.best, config, from_config(config.model))
    return run
