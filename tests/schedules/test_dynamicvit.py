"""DynamicViT's figures: tokens, parameters and multiplications by the published architectures."""

import pytest

from src.config import ModelConfig
from src.schedules import Geometry, parse, resolve

KEPT = {0.9: (176, 158, 142), 0.8: (156, 125, 100), 0.7: (137, 96, 67), 0.6: (117, 70, 42), 0.5: (98, 49, 24)}
GMACS = {0.9: 4.041, 0.8: 3.463, 0.7: 2.981, 0.6: 2.565, 0.5: 2.229}


def plan_of(share, blocks="4,7,10", **model):
    percent = f"{round(100 - 100 * share)}%"
    spec = f"{blocks}({','.join(3 * [percent])},predictor)"
    return resolve(parse(spec), Geometry.from_config(ModelConfig(**{"tokens": spec, **model})))


@pytest.mark.parametrize("share", KEPT)
def test_vit_s_keeps_and_multiplies_what_it_should(share):
    plan = plan_of(share)
    assert tuple(keep for keep in plan.kept if keep) == KEPT[share]
    assert round(plan.macs / 1e9, 3) == GMACS[share]


def test_vit_s_at_0_7_to_the_multiplication():
    plan = plan_of(0.7)
    assert plan.macs == 2_878_020_096 + 102_877_632
    assert plan.tokens_in == plan.tokens_out == 3 * (197,) + 3 * (138,) + 3 * (97,) + 3 * (68,)
    assert plan.predictor_of == (None, None, None, 0, None, None, 1, None, None, 2, None, None)
    assert plan.trained_macs == 4_598_882_304 + 3 * 196 * 239_808


@pytest.mark.parametrize(("share", "kept", "gmacs"), [(0.7, (403, 282, 197), 9.652), (0.5, (288, 144, 72), 7.187)])
def test_vit_s_at_384_pixels(share, kept, gmacs):
    plan = plan_of(share, image_size=384)
    assert tuple(keep for keep in plan.kept if keep) == kept
    assert round(plan.macs / 1e9, 3) == gmacs


@pytest.mark.parametrize(
    ("model", "blocks", "gmacs"),
    [
        ({"name": "skipvit_b_16_224"}, "4,7,10", {0.7: 11.476}),
        ({"embed_dim": 256, "num_heads": 4}, "4,7,10", {0.7: 1.375}),
        ({"name": "lvvit_s_16_224"}, "5,9,13", {0.9: 5.876, 0.8: 5.206, 0.7: 4.650, 0.5: 3.790}),
        ({"name": "lvvit_m_16_224"}, "6,11,16", {0.9: 11.207, 0.8: 9.783, 0.7: 8.593, 0.5: 6.741}),
    ],
)
def test_other_backbones_multiply_what_they_should(model, blocks, gmacs):
    assert {share: round(plan_of(share, blocks, **model).macs / 1e9, 3) for share in gmacs} == gmacs


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ({"name": "skipvit_ti_16_224"}, 5_899_582),
        ({"embed_dim": 256, "num_heads": 4}, 10_304_942),
        ({"name": "skipvit_s_16_224"}, 22_774_414),
        ({"name": "skipvit_b_16_224"}, 89_452_846),
        ({"name": "lvvit_s_16_224"}, 26_875_574),
        ({"name": "lvvit_m_16_224"}, 57_115_030),
    ],
)
def test_parameters(model, parameters):
    assert Geometry.from_config(ModelConfig(**model, predictors=3)).parameters == parameters
