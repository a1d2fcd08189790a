"""Training of predictors (DynamicViT): what is trained and when, what is refused, exact resumes."""

import json
import logging
import signal

import numpy as np
import pytest
from mindspore import Tensor

from src import commands
from src.errors import Interrupted, UserError
from src.models import from_checkpoint, from_config
from src.models.asked import asks_of
from src.progress import Progress
from src.runs import RunFolder, find_checkpoint
from src.runtime import device
from src.runtime.signals import STOP
from src.schedules import Geometry
from src.schedules.costs import run_costs
from src.schedules.phases import with_predictors
from src.training.optimizer import freeze, make_optimizer
from src.training.state import create_train_state, make_train_step
from src.weights.files import write_weights
from tests.training.test_training import LABELS, check_same, make_config

TOKENS = "2,3(30%,30%,predictor)"
UNMOVED = {"adamw": set(), "momentum": {f"predictors.{stage}.in_norm.gamma" for stage in (0, 1)}}  # 1 + less than 1e-7
IMAGES = np.random.RandomState(0).standard_normal((6, 3, 16, 16)).astype(np.float32)


def config_of(folder, *overrides):
    given = ["model.num_classes=5", f"model.tokens={TOKENS}", "train.warmup_dense_epochs=0", *overrides]
    return with_predictors(make_config(folder, *given))


def write_dense(folder, *overrides, classes=(), seed=1):
    """Write the weights of a dense network, as best.ckpt holds them."""
    config = make_config(folder, "model.num_classes=5", "model.tokens=none", *overrides)
    device.set_seeds(seed)
    weights = {weight.name: weight.value() for weight in from_config(config.model).get_parameters()}
    write_weights(folder / f"dense{seed}.ckpt", weights, config, classes)
    return folder / f"dense{seed}.ckpt"


def state_of(config, steps=9):
    device.set_seeds(0)
    return create_train_state(config, lambda: from_config(config.model), [1e-2] * steps, asks_of(config))


def changed_in(step, state, number):
    """Train a step, and return the names of the network's weights that it changes."""
    before = {weight.name: weight.asnumpy().copy() for weight in state.network.get_parameters()}
    step(Tensor(IMAGES), Tensor(LABELS), *step.sample(6, number))
    return {weight.name for weight in state.network.get_parameters() if (weight.asnumpy() != before[weight.name]).any()}


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("momentum", marks=pytest.mark.slow)])
def test_the_backbone_waits_through_the_frozen_epochs(tmp_path, optimizer):
    """Weight decay moves it no more than gradients do; then it moves by its share of the predictors' rate."""
    given = ["predictor.frozen_epochs=1", "predictor.backbone_lr=0.01", f"optimizer.name={optimizer}"]
    config = config_of(tmp_path, f"predictor.teacher={write_dense(tmp_path)}", *given)
    state = state_of(config)
    teacher = state.asks(state.network).teacher
    taught = {weight.name: weight.asnumpy().copy() for weight in teacher.get_parameters()}
    step = make_train_step(state, config, TOKENS)
    predictors = {weight.name for weight in state.network.get_parameters() if weight.name.startswith("predictors.")}
    assert len(predictors) == 20
    for number in range(3):
        assert predictors - UNMOVED[optimizer] <= changed_in(step, state, number) <= predictors
    moments = [value for name, value in state.parameters().items() if name.endswith("blocks.0.attn.qkv.weight")]
    assert all(moment.asnumpy().any() for moment in moments)  # they fill meanwhile, as in the authors' code
    assert "blocks.0.attn.qkv.weight" in changed_in(step, state, 3)
    assert all(np.array_equal(weight.asnumpy(), taught[weight.name]) for weight in teacher.get_parameters())
    assert not any("teacher" in name for name in state.parameters())


@pytest.mark.slow
def test_an_lvvit_is_trained_as_a_whole_by_one(tmp_path):
    """Its head for patch tokens too; while the backbone waits, its BatchNorms move, as in the authors' code."""
    lvvit = ["model.backbone=lvvit", "model.mlp_ratio=3.0"]
    config = config_of(
        tmp_path, *lvvit, f"predictor.teacher={write_dense(tmp_path, *lvvit)}", "predictor.frozen_epochs=1"
    )
    state = state_of(config)
    teacher = state.asks(state.network).teacher
    taught = {weight.name: weight.asnumpy().copy() for weight in teacher.get_parameters()}
    step = make_train_step(state, config, TOKENS)
    names = {weight.name for weight in state.network.get_parameters()}
    moving = {name for name in names if name.startswith("predictors.") or ".moving_" in name}
    assert len(moving) == 20 + 6
    assert [changed_in(step, state, number) for number in range(3)] == 3 * [moving]
    assert changed_in(step, state, 3) == names
    assert all(np.array_equal(weight.asnumpy(), taught[weight.name]) for weight in teacher.get_parameters())


def test_shares_of_layers_and_of_the_backbone_multiply(tmp_path):
    """Predictors learn with norm and head, which have all of the rate, and the backbone's share of it."""
    given = ["predictor.backbone_lr=0.5", "optimizer.layer_decay=0.1", "train.freeze_blocks=1"]
    network = from_config((config := config_of(tmp_path, *given, "optimizer.weight_decay=0")).model)
    freeze(network, 1)
    before = {weight.name: weight.asnumpy().copy() for weight in network.get_parameters()}
    optimizer = make_optimizer(config, network, [1e-2] * 9)
    optimizer(tuple(Tensor(np.ones(weight.shape, np.float32)) for weight in optimizer.parameters))
    moved = {weight.name: (before[weight.name] - weight.asnumpy()).max() for weight in network.get_parameters()}
    assert moved["predictors.1.out3.bias"] == pytest.approx(1e-2, rel=1e-3)
    assert moved["head.weight"] == pytest.approx(5e-3, rel=1e-3)
    assert moved["blocks.3.attn.proj.weight"] == pytest.approx(5e-4, rel=1e-3)
    assert moved["blocks.1.mlp.fc1.bias"] == pytest.approx(5e-6, rel=1e-3)
    assert moved["blocks.0.norm1.gamma"] == moved["pos_embed"] == 0


def test_a_model_has_as_many_predictors_as_any_schedule_of_its_run_asks(tmp_path):
    for overrides, predictors in (
        (["model.tokens=none"], None),
        (["model.tokens=none", f"train.tokens={TOKENS}"], 2),
        (["model.tokens=4(50%,predictor)", f"train.phases=[{{epochs: 3, tokens: '{TOKENS}'}}]"], 2),
        ([f"model.tokens={TOKENS}", "model.predictors=3"], 3),
    ):
        config = with_predictors(make_config(tmp_path, *overrides))
        assert config.model.predictors == predictors, overrides
        assert Geometry.from_config(config.model).predictors == (predictors or 0)


def test_no_schedule_gains_in_training_what_it_gains_in_inference(tmp_path):
    costs = run_costs(config_of(tmp_path, "train.warmup_dense_epochs=1"))
    dense, ranked = costs.plans
    assert costs.dense == dense.macs == dense.trained_macs
    assert ranked.macs < dense.macs < ranked.trained_macs
    assert ranked.ideal_gain > 0.1 > 0 > ranked.training_gain > -0.1
    assert costs.gain_of(ranked) == pytest.approx(ranked.training_gain)
    assert costs.ideal_gain < 0
    assert f"{100 * ranked.training_gain:+.1f}%" in costs.table()
    assert f"which is no faster than dense; inference takes {ranked.macs / 1e9:.3g} GMACs" in costs.summary()
    plain = run_costs(make_config(tmp_path))
    assert plain.plans[1].training_gain == plain.plans[1].ideal_gain > 0
    assert "inference" not in plain.summary()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["model.tokens=none", "predictor.ratio_weight=1"],
            r"predictor.ratio_weight: no schedule of the training",
        ),
        (["model.tokens=2(50%)+4", "predictor.frozen_epochs=1"], r"predictor.frozen_epochs: no schedule of the"),
        (["predictor.teacher=missing.ckpt"], r"predictor.teacher missing.ckpt does not exist; name a file of weights"),
        (["predictor.logits_weight=1"], r"predictor.logits_weight 1: there is no teacher; name its weights by pred"),
        (["predictor.tokens_weight=0"], r"predictor.tokens_weight 0: there is no teacher"),
        (
            ["predictor.teacher=T", "predictor.logits_weight=0", "predictor.tokens_weight=0"],
            r"nothing is learnt from it",
        ),
        (
            ["train.oracle=T", "train.phases=[{epochs: 2},{epochs: 1, tokens: '2(50%,oracle)'}]"],
            r"train.oracle and 2,3",
        ),
        (
            ["train.warmup_dense_epochs=1", "predictor.frozen_epochs=2"],
            r"in epochs 1 to 1 of them none asks no",
        ),
        (["predictor.frozen_epochs=1"], r"what is frozen would be random; name the weights of a trained network"),
        (["model.pool=avg"], r"model.pool avg: 2,3\(30%,30%,predictor\) is trained for a head that reads \[CLS\]"),
        (["model.backbone=lvvit", "token_labels.mix_alpha=1"], r"token_labels.mix_alpha: 2,3.* learns from labels of"),
        (["train.phases=[{epochs: 2},{epochs: 1, tokens: '2(50%,guess)'}]"], r"train.phases: phase 2: tokens spec"),
        (["model.predictors=1"], r"it asks 2 predictors, the model has 1; choose another ranking, or train with"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(tmp_path, photos, overrides, said):
    with pytest.raises(UserError, match=said):
        commands.train(config_of(tmp_path, f"data.root={photos}", *overrides), "test", False)


@pytest.mark.parametrize(
    ("teacher", "overrides", "said"),
    [
        (
            ["model.embed_dim=24"],
            [],
            r"its tokens have 24 channels, those of this model 16, and cannot be compared",
        ),
        (["model.num_classes=4"], [], r"it has 4 outputs, this model 5"),
        (["model.patch_size=8"], [], r"its patches are of 8 pixels, those of this model of 4; it has to see the same"),
        ([], ["model.backbone=lvvit"], r"it has no head for patch tokens to learn from; set predictor.tokens_weight=0"),
    ],
)
def test_a_network_that_cannot_teach_is_refused_in_a_line(tmp_path, photos, teacher, overrides, said):
    file = write_dense(tmp_path, *teacher)
    with pytest.raises(UserError, match=said):
        commands.train(
            config_of(tmp_path, f"data.root={photos}", f"predictor.teacher={file}", *overrides), "test", False
        )


def test_a_teacher_of_other_classes_is_refused(tmp_path, photos):
    file = write_dense(tmp_path, classes=("ant", "bee", "dog"))
    config = config_of(tmp_path, f"data.root={photos}", f"predictor.teacher={file}")
    with pytest.raises(UserError, match="it tells other classes apart: only in the file: dog; only in the data: cat"):
        commands.train(config, "test", False)


@pytest.mark.long
def test_a_run_resumes_exactly_says_what_its_teacher_costs_and_is_evaluated_under_any_schedule(
    tmp_path, photos, caplog
):
    """It is stopped within an epoch under masks; labels are mixed, and weights averaged."""
    caplog.set_level(logging.INFO, logger="skipvit")
    file, other = (write_dense(tmp_path, "model.num_classes=3", seed=seed) for seed in (1, 2))
    given = ["model.num_classes=3", "train.epochs=2", "train.ema_decay=0.9", "data.mixup=0.8", "data.cutmix=1.0",
             "model.drop_path_rate=0.2", "predictor.backbone_lr=0.1", f"predictor.teacher={file}", f"train.init={file}",
             f"data.root={photos}", "runtime.fused_kernels=off"]  # fmt: skip
    runs = [RunFolder(tmp_path / name) for name in ("whole", "parts")]
    commands.train(config_of(tmp_path, *given, f"run.dir={runs[0].path}"), "test", False)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Progress, "advance", _stop_at_step(4))
        for name in ("requested", "is_ending"):  # as they are, to be set back
            patch.setattr(STOP, name, getattr(STOP, name))
        commands.train(config_of(tmp_path, *given, f"run.dir={runs[1].path}"), "test", False)
    commands.resume(str(runs[1].path), {}, False)
    check_same(runs[1], runs[0])
    facts = json.loads(runs[0].asked("predictor.teacher").read_text())
    words = ["SHA-256 " + facts["sha256"], "parameters, frozen", "phase 1, 2,3(30%,30%,predictor): its forward pass",
             "the predictors stay as initialised: the file has 0, this model 2"]  # fmt: skip
    assert [said for said in words if said not in caplog.text] == []
    assert from_checkpoint(runs[0].best, tokens="none").geometry.predictors == 2
    config, checkpoint = find_checkpoint(None, str(runs[0].best), {"model.tokens": "none"})
    specs = (TOKENS, "none", "3(50%,predictor)")
    assert [row["tokens"] for row in commands.evaluate(config, checkpoint, False, specs)] == [*specs]
    file.write_bytes(other.read_bytes())
    with pytest.raises(UserError, match=r"predictor.teacher is another file than the run .* was started with"):
        commands.resume(str(runs[1].path), {"train.epochs": 3}, False)


def _stop_at_step(number):
    advance, steps = Progress.advance, []

    def stop(self, units, note=""):
        advance(self, units, note)
        steps.append(self.title == "training")
        if sum(steps) == number:
            STOP.requested = signal.SIGINT

    return stop
