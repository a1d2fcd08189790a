"""`train.init`: what is taken of a file, what is said of it, and that a resume needs it no more."""

import json
import logging

import numpy as np
import pytest
from safetensors.numpy import save_file

from src import commands
from src.errors import UserError
from src.models import from_config
from src.runs import RunFolder
from src.weights import read_checkpoint
from src.weights.files import read_arrays, write_weights
from src.weights.positions import resampling
from tests.training.test_training import make_config


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Weights of a model of 5 classes, with its configuration, as best.ckpt holds them."""
    folder = tmp_path_factory.mktemp("init")
    config = make_config(folder, "model.num_classes=5")
    network = from_config(config.model)
    weights = {weight.name: weight.value() for weight in network.get_parameters()}
    write_weights(folder / "best.ckpt", weights, config, tuple("abcde"))
    return folder / "best.ckpt"


@pytest.fixture
def start(tmp_path, photos, monkeypatch, caplog):
    """Return a function that starts a run and stops it before its first step: the state, the run folder, the log."""
    caplog.set_level(logging.INFO, logger="skipvit")

    def stop(self, resume):
        start.state = self.state

    def start(file, *overrides):
        monkeypatch.setattr("src.training.trainer.Trainer.train", stop)
        given = [f"data.root={photos}", f"train.init={file}", f"run.dir={tmp_path / 'run'}",
                 "runtime.fused_kernels=off", *overrides]  # fmt: skip
        commands.train(make_config(tmp_path, *given), "test", False)
        return start.state, RunFolder(tmp_path / "run"), caplog.text

    return start


def test_the_network_and_its_average_start_from_the_file(file, start):
    state, run, said = start(file, "model.image_size=24", "train.ema_decay=0.9")
    expected = dict(read_checkpoint(file).arrays)
    expected["pos_embed"] = (resampling((4, 4), (6, 6)) @ expected["pos_embed"][0])[None]
    for name, weight in state.parameters().items():
        group, _, name = name.partition(".")
        if group in ("network", "ema"):
            same = weight.shape == expected[name].shape and np.allclose(weight.asnumpy(), expected[name], 0, 1e-7)
            assert same == (name not in ("head.weight", "head.bias")), name
    facts = json.loads(run.init.read_text())
    assert facts["file"] == str(file)
    assert len(facts["sha256"]) == 64
    for words in (str(file), facts["sha256"], "positions resampled from 4x4 to 6x6 patches",
                  "the head stays as initialised: the file has 5 outputs, this model 3"):  # fmt: skip
        assert words in said
    assert len(facts["remarks"]) == 2


def test_names_of_timm_and_a_head_of_as_many_classes(file, start, tmp_path):
    arrays = {name.replace("gamma", "weight").replace("beta", "bias"): array.astype(np.float32) + 1
              for name, array in read_checkpoint(file).arrays.items()}  # fmt: skip
    for name in ("head.weight", "head.bias"):
        arrays[name] = arrays[name][:3]
    arrays["patch_embed.proj.weight"] = arrays["patch_embed.proj.weight"].reshape(16, 3, 4, 4)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, tmp_path / "timm.safetensors")
    state, run, said = start(tmp_path / "timm.safetensors")
    network = {weight.name: weight.asnumpy() for weight in state.network.get_parameters()}
    assert np.array_equal(network["head.weight"], arrays["head.weight"])
    assert np.array_equal(network["blocks.3.norm2.gamma"], arrays["blocks.3.norm2.weight"])
    assert json.loads(run.init.read_text())["remarks"] == []
    assert "train.init:" not in said
    assert "data.resize=pil" in said


def test_a_file_of_a_model_with_a_class_token_is_none_for_one_without(file, start):
    with pytest.raises(UserError, match=r"extra: cls_token; other shape: pos_embed \[1, 17, 16\] for \[1, 16, 16\]"):
        start(file, "model.pool=avg", "model.image_size=24", "model.tokens=none")


def test_other_classes_and_another_gelu_are_said(file, start, tmp_path):
    config = make_config(tmp_path, "model.act=gelu_erf")
    network = from_config(config.model)
    weights = {weight.name: weight.value() for weight in network.get_parameters()}
    write_weights(tmp_path / "a.ckpt", weights, config, ("ant", "bee", "wasp"))
    _, _, said = start(tmp_path / "a.ckpt")
    assert "as many classes, but not of these: only in the file: wasp; only in the data: cat" in said
    assert "the file was trained with model.act gelu_erf, this model has gelu_tanh" in said


def test_what_is_missing_or_extra_is_listed_and_no_run_is_begun(file, start, tmp_path):
    arrays = {name: array for name, array in read_checkpoint(file).arrays.items() if name != "norm.beta"}
    save_file({**arrays, "fc_norm.other": np.zeros(3, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"a.safetensors does not fit the model; missing: norm.beta; extra: fc_norm"):
        start(tmp_path / "a.safetensors")
    assert not (tmp_path / "run").exists()


def test_another_number_of_heads_is_refused_where_the_file_tells(file, start):
    with pytest.raises(UserError, match=r"its model.num_heads is 2, not 4; set what the file has"):
        start(file, "model.num_heads=4")


def test_a_run_that_saved_nothing_starts_from_the_same_file_again(file, start, tmp_path, photos):
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(file.read_bytes())
    started = start(copy)[0]
    commands.resume(str(tmp_path / "run"), {}, False)
    state = start.state
    assert state is not started
    assert np.array_equal(state.network.blocks[0].attn.qkv.weight.asnumpy(),
                          read_checkpoint(file).arrays["blocks.0.attn.qkv.weight"])  # fmt: skip
    weights = {weight.name: weight.value() for weight in state.network.get_parameters()}
    write_weights(copy, weights, make_config(tmp_path), ("x", "y", "z"))
    with pytest.raises(UserError, match=r"train.init is another file than the run .* was started with"):
        commands.resume(str(tmp_path / "run"), {}, False)


@pytest.mark.slow
def test_a_resume_does_not_need_the_file(file, tmp_path, photos):
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(file.read_bytes())
    given = [f"data.root={photos}", f"train.init={copy}", f"run.dir={tmp_path / 'run'}", "train.epochs=1",
             "model.tokens=none", "runtime.fused_kernels=off"]  # fmt: skip
    commands.train(make_config(tmp_path, *given), "test", False)
    run = RunFolder(tmp_path / "run")
    first = read_arrays(run.last)
    copy.unlink()
    commands.resume(str(run.path), {"train.epochs": 2}, False)
    assert [row.epoch for row in run.read_metrics()] == [1, 2]
    assert run.init.is_file()
    assert not np.array_equal(first["network.head.weight"], read_arrays(run.last)["network.head.weight"])
