"""The registry's models under EViT's schedules: multiplications and tokens, published or by arithmetic."""

import re

import pytest

from src.config import ModelConfig
from src.experiments.variants import read_rows
from src.schedules import Geometry, parse, resolve
from tests.helpers.commands import ROOT
from tests.helpers.configs import load

# exact multiplications of ViT-S/16 fused and not, and tokens that leave blocks 3, 6, 9, 12, by the percentage dropped
SMALL = {
    10: (4_021_873_152, 3_988_126_464, (197, 179, 163, 148), (197, 178, 161, 145)),
    20: (3_477_159_936, 3_444_215_040, (197, 159, 129, 105), (197, 158, 127, 102)),
    30: (3_029_280_768, 2_996_994_816, (197, 140, 100, 72), (197, 139, 98, 69)),
    40: (2_635_293_696, 2_608_431_360, (197, 120, 74, 46), (197, 119, 72, 44)),
    50: (2_308_835_328, 2_282_378_496, (197, 100, 52, 28), (197, 99, 50, 26)),
}
OTHERS = {  # 10⁹ multiplications of other widths, fused and not
    "ti": {10: (1.092, 1.083), 20: (0.942, 0.933), 30: (0.821, 0.812), 40: (0.715, 0.708), 50: (0.629, 0.622)},
    "b": {
        10: (15.395, 15.268), 20: (13.327, 13.201), 30: (11.610, 11.485), 40: (10.088, 9.984), 50: (8.820, 8.716),
    },
}  # fmt: skip
HIGHER = {  # pixels and percentage: 10⁹ multiplications fused, not, and dense, and tokens after each fused drop
    (256, 30): (4.007, 3.979, 6.142, (182, 129, 92)),
    (272, 30): (4.560, 4.543, 7.018, (205, 145, 103)),
    (288, 40): (4.500, 4.472, 7.970, (197, 120, 74)),
    (304, 50): (4.437, 4.420, 9.001, (183, 93, 48)),
    (384, 50): (7.522, 7.494, 15.490, (290, 147, 75)),
}
DENSE = {  # 10⁹ multiplications of dense models at 224, 288, 304, 384 pixels
    "ti_16": (1.254, 2.260, 2.579, 4.682), "s_16": (4.599, 7.970, 9.001, 15.490),
    "b_16": (17.564, 29.743, 33.375, 55.484), "ti_distilled_16": (1.261, 2.268, 2.588, 4.693),
    "s_distilled_16": (4.624, 7.998, 9.029, 15.523), "b_distilled_16": (17.657, 29.840, 33.475, 55.591),
    "l_16": (61.555, 103.594, None, 191.066), "l_32": (15.378, 25.349, None, 45.276),
}  # fmt: skip


def plan(size, spec, pixels=224):
    return resolve(parse(spec), Geometry.from_config(ModelConfig(name=f"skipvit_{size}_224", image_size=pixels)))


def specs(percent):
    spec = f"4,7,10({percent}%,{percent}%,{percent}%)"
    return spec + "+fused", spec


@pytest.mark.parametrize("percent", SMALL)
def test_every_keep_rate_of_the_small_model(percent):
    for spec, macs, tokens in zip(specs(percent), SMALL[percent][:2], SMALL[percent][2:]):
        result = plan("s_16", spec)
        assert result.macs == macs
        assert tuple(result.tokens_out[block - 1] for block in (3, 6, 9, 12)) == tokens


@pytest.mark.parametrize("size", OTHERS)
def test_every_keep_rate_of_other_widths(size):
    for percent, expected in OTHERS[size].items():
        assert tuple(round(plan(f"{size}_16", spec).macs / 1e9, 3) for spec in specs(percent)) == expected


@pytest.mark.parametrize(("pixels", "percent"), HIGHER)
def test_higher_resolution(pixels, percent):
    *expected, tokens = HIGHER[pixels, percent]
    given = (*specs(percent), "none")
    assert [round(plan("s_16", spec, pixels).macs / 1e9, 3) for spec in given] == expected
    assert tuple(plan("s_16", given[0], pixels).tokens_out[block - 1] for block in (4, 7, 10)) == tokens


@pytest.mark.parametrize("model", DENSE)
def test_dense_models(model):
    for pixels, expected in zip((224, 288, 304, 384), DENSE[model]):
        if expected is not None:
            assert round(plan(model, "none", pixels).macs / 1e9, 3) == expected


def test_with_a_distillation_token_two_tokens_never_leave():
    result = plan("s_distilled_16", "4,7,10(30%,30%,30%)+fused")
    assert tuple(result.tokens_out[block - 1] for block in (3, 6, 9, 12)) == (198, 141, 101, 73)


def test_the_rows_of_configs_tables_evit_have_the_multiplications_that_they_say():
    path = ROOT / "configs/tables/evit.yaml"
    said = [float(value) for value in re.findall(r"# (\d\.\d{3}) GMACs", path.read_text())]
    rows = [variant for group in read_rows(path).values() for variant in group]
    assert len(rows) == len(said) == 13
    for variant, expected in zip(rows, said):
        config = load(ROOT / "configs/finetune_s.yaml", [f"{key}={value}" for key, value in variant.settings.items()])
        assert round(resolve(parse(variant.tokens), Geometry.from_config(config.model)).macs / 1e9, 3) == expected
