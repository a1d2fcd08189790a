"""`train.oracle`: what is trained, what is refused, and that a run's tokens are the oracle's."""

import json
import logging
from contextlib import nullcontext

import numpy as np
import pytest
from mindspore import Tensor

from src import commands
from src.errors import UserError
from src.models import from_config
from src.models.asked import asks_of
from src.runs import RunFolder
from src.runtime import device
from src.training.state import create_train_state, make_train_step
from src.training.trainer import Trainer
from src.weights.files import CONFIG, read_arrays, write_weights
from tests.training.test_training import LABELS, make_config

TOKENS = "2(50%,oracle)+4"


def write_oracle(folder, seed, *overrides):
    """Write the weights of a dense network of other sizes than the student's, as best.ckpt holds them."""
    given = ["model.num_classes=5", "model.tokens=none", "model.depth=8", "model.embed_dim=24", *overrides]
    config = make_config(folder, *given)
    device.set_seeds(seed)
    weights = {weight.name: weight.value() for weight in from_config(config.model).get_parameters()}
    path = folder / f"oracle{seed}.ckpt"
    write_weights(path, weights, config, tuple("abcde"))
    return path


def config_of(tmp_path, oracle, *overrides):
    return make_config(tmp_path, f"train.oracle={oracle}", f"train.tokens={TOKENS}", *overrides)


def test_every_weight_of_the_network_is_trained_and_none_of_the_oracle(tmp_path):
    config = config_of(tmp_path, write_oracle(tmp_path, 1), "train.ema_decay=0.9")
    asks = asks_of(config)
    state = create_train_state(config, lambda: from_config(config.model), [1e-2] * 10, asks)
    oracle = asks(state.network.with_tokens(TOKENS)).oracle
    before = {weight.name: weight.asnumpy().copy() for weight in oracle.get_parameters()}
    assert len(before) == 8 * 12 + 8
    started = {name: weight.asnumpy().copy() for name, weight in state.parameters().items()}
    step = make_train_step(state, config, TOKENS)
    images = Tensor(np.random.RandomState(0).standard_normal((6, 3, 16, 16)).astype(np.float32))
    for number in range(2):
        step(images, Tensor(LABELS), *step.sample(6, number))
    for weight in oracle.get_parameters():
        assert np.array_equal(before[weight.name], weight.asnumpy()), weight.name
    after = {name: weight.asnumpy() for name, weight in state.parameters().items()}
    assert not any("oracle" in name for name in after)
    network = [name for name in after if name.startswith("network.")]
    assert len(network) == 4 * 12 + 8
    assert all((after[name] != started[name]).any() for name in network)


@pytest.mark.long
def test_a_run_says_what_its_oracle_costs_resumes_exactly_and_another_oracle_gives_another(tmp_path, photos, caplog):
    caplog.set_level(logging.INFO, logger="skipvit")
    files = {seed: write_oracle(tmp_path, seed) for seed in (1, 2)}
    runs = {}
    for name, seed in (("whole", 1), ("parts", 1), ("other", 2)):
        given = [f"data.root={photos}", f"run.dir={tmp_path / name}", "runtime.fused_kernels=off"]
        with pytest.MonkeyPatch.context() as patch:
            if name == "parts":
                patch.setattr("src.training.trainer.Trainer._finish_epoch", _stop_after(2))
            with pytest.raises(KeyboardInterrupt) if name == "parts" else nullcontext():
                commands.train(config_of(tmp_path, files[seed], *given), "test", False)
        runs[name] = RunFolder(tmp_path / name)
    commands.resume(str(tmp_path / "parts"), {}, False)
    assert [row.tokens for row in runs["whole"].read_metrics()] == ["none", TOKENS, TOKENS]
    losses = {name: [row.loss for row in run.read_metrics()] for name, run in runs.items()}
    assert losses["whole"][0] == losses["other"][0]
    assert losses["whole"][1] != losses["other"][1]
    whole, parts = read_arrays(runs["whole"].last), read_arrays(runs["parts"].last)
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(whole[name], parts[name]) for name in whole if name != CONFIG)
    facts = json.loads(runs["whole"].asked("train.oracle").read_text())
    assert facts["file"] == str(files[1])
    for words in ("SHA-256 " + facts["sha256"], "parameters, frozen", "its forward pass through 4 of 8 blocks takes"):
        assert words in caplog.text
    assert len(facts["remarks"]) == 2
    files[1].write_bytes(files[2].read_bytes())
    with pytest.raises(UserError, match=r"train.oracle is another file than the run .* was started with"):
        commands.resume(str(tmp_path / "parts"), {"train.epochs": 4}, False)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.tokens=2(50%,oracle)+4"], r"model.tokens 2\(50%,oracle\)\+4: an oracle ranks in training alone"),
        (["train.oracle=null"], r"2\(50%,oracle\)\+4 ranks by an oracle: name its weights by train.oracle=FILE"),
        (["train.tokens=null"], r"oracle1.ckpt: no schedule of the training asks it; write the ranking"),
        (["train.oracle=missing.ckpt"], r"train.oracle missing.ckpt does not exist; name a file of weights"),
        (["model.patch_size=8"], r"its patches are of 4 pixels, those of this model of 8"),
        (["train.tokens=1(30%,oracle)+2;2(50%)+4"], r"an oracle ranks in all routes or in none"),
        (["train.tokens=<2(50%,oracle)+4"], r"before a block \(<\) there is no attention yet"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(tmp_path, photos, overrides, said):
    oracle = write_oracle(tmp_path, 1)
    with pytest.raises(UserError, match=said):
        commands.train(config_of(tmp_path, oracle, f"data.root={photos}", *overrides), "test", False)


def test_an_oracle_without_a_class_token_is_refused(tmp_path, photos):
    oracle = write_oracle(tmp_path, 1, "model.pool=avg")
    with pytest.raises(UserError, match=r"oracle1.ckpt: it has no \[CLS\] token whose attention would rank"):
        commands.train(config_of(tmp_path, oracle, f"data.root={photos}"), "test", False)


def test_outside_training_there_is_no_oracle(tmp_path):
    config = config_of(tmp_path, write_oracle(tmp_path, 1))
    network = from_config(config.model).with_tokens(TOKENS).set_train(False)
    with pytest.raises(UserError, match="ranks by an oracle, which only training has; leave the word out"):
        network.sample(2, 0)
    state = create_train_state(config, lambda: from_config(config.model), [1e-2] * 10)
    with pytest.raises(UserError, match=r"ranks by an oracle: name its weights by train.oracle=FILE"):
        make_train_step(state, config, TOKENS)


def _stop_after(epoch):
    finish = Trainer._finish_epoch

    def stop(self, phase, number, *arguments):
        finish(self, phase, number, *arguments)
        if number == epoch:
            raise KeyboardInterrupt

    return stop
