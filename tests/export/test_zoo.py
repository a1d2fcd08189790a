"""LV-ViT and DynamicViT's predictors through export, predictions and pictures, as a user goes."""

import json

import numpy as np
import pytest
from PIL import Image

from src.config import parse
from src.export import mindir
from src.export.form import Form
from src.models import from_config
from src.weights.files import write_weights
from tests.helpers.commands import run_here

SIZES = {"image_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 3}
CASES = {
    "lvvit_s_16_224": "1,2(40%,40%)+fused",
    "skipvit_ti_16_224": "2,3(30%,30%,predictor)",
}


def saved(folder, name, tokens):
    """A checkpoint of clearly different scores."""
    given = {"model.name": name, "model.tokens": tokens, **{f"model.{key}": value for key, value in SIZES.items()}}
    config = parse("{}", "test", given)
    network = from_config(config.model)
    for weight in network.get_parameters():
        if weight.ndim == 2:
            weight.set_data(weight * 10)
    write_weights(folder / "best.ckpt", {w.name: w.value() for w in network.get_parameters()}, config, ("a", "b", "c"))
    return config


@pytest.mark.slow
@pytest.mark.parametrize(("target", "batch"), [("cpu", 0), ("ascend", 2)])
def test_a_mindir_of_lvvit_computes_the_network_and_tells_what_it_keeps(tmp_path, capsys, target, batch):
    """What it computes is compared where it is written, and it is not kept where it differs."""
    config = saved(tmp_path, "lvvit_s_16_224", CASES["lvvit_s_16_224"])
    outputs, form = {batch: tmp_path / "a.mindir"}, Form(kept=True, uint8=True)
    mindir.export_checkpoint(config, tmp_path / "best.ckpt", outputs, form, 1e-4, target)
    assert f"for {target}, largest difference" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_one_network_in_three_files_predicts_the_same_and_is_drawn(tmp_path, name):
    saved(tmp_path, name, CASES[name])
    pixels = np.random.RandomState(0).randint(0, 256, (2, 20, 20, 3)).astype(np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    for options in (("best.onnx", "--batch_size", 0, "--kept"), ("best.mindir", "--batch_size", 2)):
        done = run_here("export", "--ckpt", "best.ckpt", "--output", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    said = []
    for file in ("best.ckpt", "best.onnx", "best.mindir"):
        done = run_here("src.tools.predict", file, "--json", "0.png", "1.png", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        said.append([json.loads(line) for line in done.stdout.splitlines()])
    assert said[0] == said[1] == said[2]
    assert {line["tokens"] for line in said[0]} == {CASES[name]}
    shown = ("--tokens", "none", "--tokens", CASES[name], "--output", "sheet.png", "0.png", "1.png")
    done = run_here("src.tools.visualize", "--ckpt", "best.ckpt", *shown, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "sheet.png").size[0] > 300
