"""Phases: what a configuration's list comes to, what it costs, curves and their plateaus; without a tensor."""

import dataclasses

import pytest

from src.config import Config, ModelConfig, PhaseConfig, TrainConfig
from src.errors import UserError
from src.schedules import Geometry, Phase, parse, plan_phases, resolve
from src.schedules.costs import run_costs
from src.schedules.curves import blend, plateaus, share, uncut_macs
from src.schedules.phases import config_of, count_graphs, evaluated_tokens
from tests.helpers.commands import ROOT
from tests.helpers.configs import load

VIT_S = Geometry.from_config(ModelConfig())


def run_of(*phases, tokens="none", **train):
    listed = tuple(PhaseConfig(**phase) for phase in phases)
    return Config(model=ModelConfig(tokens=tokens), train=TrainConfig(phases=listed, **train))


def test_a_list_of_two_is_a_dense_warm_up():
    sugar = Config(model=ModelConfig(tokens="6(55%)+11"), train=TrainConfig(warmup_dense_epochs=15))
    listed = run_of({"epochs": 15, "tokens": "none"}, {"epochs": 285}, tokens="6(55%)+11")
    assert plan_phases(sugar) == plan_phases(listed)
    assert [evaluated_tokens(listed, phase) for phase in plan_phases(listed)] == ["none", "6(55%)+11"]


def test_phases_have_sizes_and_policies():
    config = run_of(
        {"epochs": 2, "image_size": 96, "auto_augment": "none"},
        {"epochs": 3, "image_size": (160, 96), "tokens": "3(50%)+11", "auto_augment": "randaug-m3"},
        {"epochs": 1},
    )
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, auto_augment="randaug-m9"))
    phases = plan_phases(config)
    assert phases == [
        Phase(1, "none", 1, 2, 96, None),
        Phase(2, "3(50%)+11", 3, 5, (160, 96), "randaug-m3"),
        Phase(3, "none", 6, 6, 224, "randaug-m9"),
    ]
    of_second = config_of(config, phases[1])
    assert (of_second.model.image_size, of_second.model.tokens) == ((160, 96), "3(50%)+11")
    assert of_second.data.auto_augment == "randaug-m3"


def test_training_may_have_a_schedule_of_its_own():
    config = Config(model=ModelConfig(tokens="none"), train=TrainConfig(tokens="3(50%)+11", warmup_dense_epochs=2))
    phases = plan_phases(config)
    assert [(phase.tokens, phase.first) for phase in phases] == [("none", 1), ("3(50%)+11", 3)]
    assert [evaluated_tokens(config, phase) for phase in phases] == ["none", "none"]


def test_phases_in_a_row_share_a_graph():
    config = run_of(
        {"epochs": 1, "auto_augment": "randaug-m1"}, {"epochs": 1, "auto_augment": "randaug-m2"},
        {"epochs": 1, "tokens": "6(55%)+11"}, {"epochs": 1},
    )  # fmt: skip
    assert count_graphs(plan_phases(config)) == 3


SIZES = ((96, 60), (160, 120), (192, 60), (224, 60))


@pytest.mark.parametrize(
    ("phases", "gain"),
    [
        ([{"image_size": size, "epochs": epochs} for size, epochs in SIZES], 1.7340),
        ([{"image_size": size, "epochs": epochs, "tokens": "6(55%)+11"} for size, epochs in SIZES], 2.1981),
        (
            [
                {"image_size": 96, "epochs": 60},
                *({"image_size": size, "epochs": epochs, "tokens": "6(55%)+11"} for size, epochs in SIZES[1:3]),
                {"image_size": 224, "epochs": 60},
            ],
            1.9824,
        ),
        ([{"tokens": spec, "epochs": 100} for spec in ("3(75%)+11", "3(50%)+11", "none")], 1.3631),
        ([{"tokens": t, "epochs": e} for t, e in (("none", 15), ("6(55%)+11", 255), ("none", 30))], 1.2206),
    ],
)
def test_what_published_curricula_gain(phases, gain):
    """EfficientTrain++'s sizes (arXiv 2405.08768) with equally many images a stage, alone and with SkipViT; growth."""
    costs = run_costs(run_of(*phases))
    assert 1 + costs.ideal_gain == pytest.approx(gain, abs=6e-5)
    assert f"({gain:.4f} times)" in costs.table()


@pytest.mark.parametrize(
    ("name", "gain", "graphs"),
    [
        ("efficienttrain_s", 1.7340, 4),
        ("skipvit_fast_s", 1.9824, 4),
        ("toe_s", 1.3631, 3),
        ("evit_cosine_s", 1.3799, 10),
        ("skipvit_s", 1.2531, 2),
        ("cifar10_efficient", 1.6004, 4),
        ("cifar10_fast", 1.8210, 4),
        ("cifar10_toe", 1.3703, 3),
        ("tread_s", 1.4242, 1),
        ("random_ltd_s", 1.3090, 11),
        ("cifar10_tread", 1.4171, 1),
        ("cifar10_random_ltd", 1.2953, 11),
    ],
)
def test_what_the_recipes_gain(name, gain, graphs):
    costs = run_costs(load(ROOT / "configs" / f"{name}.yaml"))
    assert 1 + costs.ideal_gain == pytest.approx(gain, abs=6e-5)
    assert count_graphs(costs.phases) == graphs


def test_the_cost_of_a_phase_is_that_of_its_size():
    costs = run_costs(run_of({"epochs": 1, "image_size": 96}, {"epochs": 3, "image_size": 288}))
    assert [plan.macs for plan in costs.plans] == [809_263_104, 7_970_316_288]
    assert costs.dense == 4_598_882_304
    assert costs.macs == (809_263_104 + 3 * 7_970_316_288) / 4
    assert "| 1 | 1-1 | `none` | 96 | 444 | 0.809 | +468.3% |" in costs.table()
    assert costs.table().rstrip().endswith("2 training graphs")


# EViT (arXiv 2202.07800), released command: cosine from epoch 10, over 100 of 300; keep rates at an epoch's start
EVIT_EPOCHS = (10, 11, 20, 35, 60, 85, 100, 109, 110)
EVIT_RATES = {
    0.9: (1, 0.999975, 0.997553, 0.985355, 0.950000, 0.914645, 0.902447, 0.900025, 0.9),
    0.7: (1, 0.999926, 0.992658, 0.956066, 0.850000, 0.743934, 0.707342, 0.700074, 0.7),
    0.5: (1, 0.999877, 0.987764, 0.926777, 0.750000, 0.573223, 0.512236, 0.500123, 0.5),
}
EVIT_SHARES = {0.9: 0.9005, 0.8: 0.8048, 0.7: 0.7248, 0.6: 0.6542, 0.5: 0.5948}  # of dense MACs over 300 epochs
EVIT_SHAPES = {0.9: 9, 0.8: 10, 0.7: 10, 0.6: 10, 0.5: 11}  # met if the rate is set every 10 epochs


def evit(keep, plateaus=10):
    drop = f"{100 - 100 * keep:.0f}%"
    spec = f"4,7,10({drop},{drop},{drop})+fused"
    curve = {"epochs": 100, "tokens": spec, "from": "none", "curve": "cosine", "plateaus": plateaus}
    return spec, run_of({"epochs": 10, "tokens": "none"}, curve, {"epochs": 190, "tokens": spec}, tokens=spec)


@pytest.mark.parametrize("keep", EVIT_RATES)
def test_the_cosine_is_evits(keep):
    rates = [1 - (1 - keep) * share("cosine", (epoch - 10) / 100) for epoch in EVIT_EPOCHS]
    assert rates == pytest.approx(EVIT_RATES[keep], abs=6e-7)


@pytest.mark.parametrize("keep", EVIT_SHARES)
def test_plateaus_cost_what_the_curve_costs(keep):
    _, config = evit(keep)
    costs = run_costs(config)
    assert costs.uncut / costs.dense == pytest.approx(EVIT_SHARES[keep], abs=6e-5)
    assert costs.macs == pytest.approx(costs.uncut, rel=0.02)
    assert costs.macs == pytest.approx(costs.uncut, rel=0.001), "a plateau is as high as the curve at its middle"
    assert f"curves without plateaus: {costs.uncut / 1e9:.3f} GMACs" in costs.table()


def test_evits_plateaus_are_ten_graphs_at_keep_rate_0_7():
    """The first plateau keeps all tokens as the warm-up, and the last as many as what follows: they share its graph."""
    spec, config = evit(0.7)
    phases = plan_phases(config)
    assert [phase.tokens for phase in phases[:3]] == ["none", "none", "4,7,10(1.63%,1.63%,1.63%)+fused"]
    assert phases[-1].tokens == spec
    assert [phase.first for phase in phases] == [1, *range(11, 111, 10), 111]
    assert count_graphs(phases) == EVIT_SHAPES[0.7] == 10


@pytest.mark.parametrize("keep", EVIT_SHAPES)
def test_shapes_of_a_rate_that_is_set_at_the_beginning_of_ten_epochs(keep):
    spec, _ = evit(keep)
    specs = ["none", spec, *(blend("none", spec, share("cosine", part / 10), digits=9) for part in range(10))]
    assert len({resolve(parse(each), VIT_S).tokens_out for each in specs}) == EVIT_SHAPES[keep]


def test_curves_grow_too():
    phase = PhaseConfig(epochs=7, curve="linear", plateaus=3, **{"from": "3(75%)+11"})
    spans = list(plateaus(phase, "none", VIT_S))
    assert spans == [("3(64.29%)+11", 2), ("3(42.86%)+11", 2), ("3(16.07%)+11", 3)]
    mean = sum(resolve(parse(spec), VIT_S).macs * epochs for spec, epochs in spans) / 7
    assert mean == pytest.approx(uncut_macs(phase, "none", VIT_S), rel=0.02)


@pytest.mark.parametrize(("first", "last"), [("none", "none"), ("4(30%)+11", "6(30%)+11"), ("6(30%)", "6(30%)+11")])
def test_a_curve_between_other_schedules_is_refused(first, last):
    with pytest.raises(UserError, match="must differ in their ratios alone"):
        blend(first, last, 0.5)
