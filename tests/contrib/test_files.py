"""The pages and the recipe for MindCV: complete, and in step with the project's own."""

import ast
import re

import pytest
import yaml

from src.config import ModelConfig, load
from src.schedules import Geometry
from src.training.optimizer import peak_lr
from tests.contrib.loading import CONTRIB, MODEL_FILE
from tests.contrib.test_model import SIZED_AS
from tests.helpers.commands import ROOT

CONFIGS = CONTRIB / "configs" / "skipvit"
PAGE = (CONFIGS / "README.md").read_text(encoding="utf-8")
RECIPE = yaml.safe_load((CONFIGS / "skipvit_small_ascend.yaml").read_text(encoding="utf-8"))
OUTLINE = [
    "# SkipViT", "## Introduction", "## Requirements", "## Quick Start", "### Preparation", "#### Installation",
    "#### Dataset Preparation", "### Training", "### Validation", "## Performance", "### Notes", "## References",
]  # fmt: skip


def test_the_recipe_is_the_projects():
    config = load(ROOT / "configs" / "skipvit_s.yaml")
    data, train, optimizer = config.data, config.train, config.optimizer
    assert SIZED_AS[RECIPE["model"]] == config.model.name
    expected = {
        "batch_size": data.batch_size, "scale": list(data.scale), "ratio": list(data.ratio), "hflip": data.hflip,
        "color_jitter": data.color_jitter, "interpolation": data.interpolation, "crop_pct": data.crop_pct,
        "auto_augment": data.auto_augment, "aug_repeats": data.repeats, "re_prob": data.random_erasing,
        "mixup": data.mixup, "cutmix": data.cutmix, "cutmix_prob": data.mixup_prob, "epoch_size": train.epochs,
        "drop_rate": config.model.drop_rate, "drop_path_rate": config.model.drop_path_rate,
        "label_smoothing": train.label_smoothing, "lr": peak_lr(config, processes=8), "min_lr": optimizer.min_lr,
        "warmup_epochs": optimizer.warmup_epochs, "decay_epochs": train.epochs - optimizer.warmup_epochs,
        "opt": optimizer.name, "weight_decay": optimizer.weight_decay, "amp_level": train.amp_level,
        "loss_scale_type": train.loss_scale_type, "loss_scale": train.loss_scale,
    }  # fmt: skip
    assert {key: RECIPE[key] for key in expected} == expected


def test_the_page_has_the_outline_of_the_others():
    assert re.findall(r"^#+ .*", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL), re.MULTILINE) == OUTLINE
    targets = re.findall(r"\]\((.*?)\)", PAGE)
    assert all(target.startswith(("https://", "#")) for target in targets)


@pytest.mark.parametrize("name", SIZED_AS)
def test_the_page_counts_the_parameters(name):
    (row,) = re.findall(rf"^\| {name} \| ([\d.]+) \| not run \|", PAGE, re.MULTILINE)
    assert float(row) == round(Geometry.from_config(ModelConfig(name=SIZED_AS[name])).parameters / 1e6, 2)


def test_the_model_file_is_of_python_3_7_and_imports_mindspore_and_mindcv_alone():
    tree = ast.parse(MODEL_FILE.read_text(encoding="utf-8"), feature_version=(3, 7))
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    absolute = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    absolute |= {node.module for node in imports if isinstance(node, ast.ImportFrom) and not node.level}
    assert absolute == {"functools", "math", "typing", "mindspore"}
    assert len(MODEL_FILE.read_text(encoding="utf-8").splitlines()) <= 300


def test_the_checklist_answers_each_of_its_points():
    page = (CONTRIB / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, 17))
    for target in re.findall(r"\]\((?!https://)(.*?)\)", page):
        assert (CONTRIB / target).is_file(), target
