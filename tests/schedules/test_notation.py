"""The notation, and the numbers of the papers' tables."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.config import ModelConfig
from src.errors import UserError
from src.schedules import Geometry, Schedule, parse, resolve
from src.schedules.rankings import RANKINGS

VIT_S = Geometry.from_config(ModelConfig(num_classes=1000))

# SkipViT's Table 1: GMACs, ideal gain in percent, tokens leaving blocks 1 to 12
TABLE1 = {
    "none": (4.599, 0.0, [197] * 12),
    "6(45%)+fused": (3.450, 33.3, [197] * 5 + [110] * 7),
    "4,7(30%,30%)+10": (3.734, 23.2, [197] * 3 + [139] * 3 + [98] * 3 + [197] * 3),
    "4,7(30%,30%)+11": (3.536, 30.0, [197] * 3 + [139] * 3 + [98] * 4 + [197] * 2),
    "6,8(35%,35%)+10": (3.970, 15.9, [197] * 5 + [129] * 2 + [85] * 2 + [197] * 3),
    "6,8(35%,35%)+11": (3.747, 22.7, [197] * 5 + [129] * 2 + [85] * 3 + [197] * 2),
    "6(45%)+11": (3.789, 21.4, [197] * 5 + [109] * 5 + [197] * 2),
    "6(50%)+11": (3.701, 24.3, [197] * 5 + [99] * 5 + [197] * 2),
    "6(55%)+11": (3.621, 27.0, [197] * 5 + [90] * 5 + [197] * 2),
}


@pytest.mark.parametrize("spec", TABLE1)
def test_table_1_to_the_printed_digits(spec):
    gmacs, gain, tokens = TABLE1[spec]
    plan = resolve(parse(spec), VIT_S)
    assert f"{plan.macs / 1e9:.3f}" == f"{gmacs:.3f}"
    assert f"{100 * plan.ideal_gain:.1f}" == f"{gain:.1f}"
    assert list(plan.tokens_out) == tokens


@pytest.mark.parametrize(
    ("dropped", "fused", "gone"),
    [(10, 4.02, 3.99), (20, 3.48, 3.44), (30, 3.03, 3.00), (40, 2.64, 2.61), (50, 2.31, 2.28)],
)  # fmt: skip
def test_macs_of_evit(dropped, fused, gone):
    spec = f"4,7,10({dropped}%,{dropped}%,{dropped}%)"
    assert f"{resolve(parse(spec + '+fused'), VIT_S).macs / 1e9:.2f}" == f"{fused:.2f}"
    assert f"{resolve(parse(spec), VIT_S).macs / 1e9:.2f}" == f"{gone:.2f}"


# multiplications of ViT-S/16 as published or counted by others, and the blocks' tokens where tokens leave
ROUTES = {
    "4(50%)+11": 3_309_158_400,
    "4(55%)+11": 3_195_151_872,
    "3(60%)+11": 2_837_435_136,
    "<3(50%,random)+10": 3_229_077_504,  # TREAD
    "<3(50%,random)+11": 3_033_391_104,
    "<2..11(50%,random)+next": 2_642_018_304,  # random-LTD
    "<1(50%,random)": 2_250_645_504,  # PatchDropout
    "2(50%)+6;7(50%)+11": 3_193_552_896,
}


@pytest.mark.parametrize("spec", ROUTES)
def test_macs_of_routes(spec):
    assert resolve(parse(spec), VIT_S).macs == ROUTES[spec]


def test_tokens_of_routes():
    ltd = resolve(parse("<2..4(50%,random)+next"), VIT_S)
    assert ltd.tokens_in == ltd.tokens_out == (197, 99, 99, 99, *[197] * 8)
    assert ltd.rejoins == (False, False, True, True, True, *[False] * 7)
    after = resolve(parse("2..4(50%)+next"), VIT_S)
    assert after.tokens_in == (197,) * 12
    assert after.tokens_out == ltd.tokens_out
    two = resolve(parse("2(50%)+6;<6(25%,norm)+8"), VIT_S)
    assert two.tokens_in == (197, 197, 99, 99, 99, 148, 148, *[197] * 5)
    assert [drop and drop.present for drop in two.drops[:6]] == [None, 196, None, None, None, 196]


@st.composite
def specs(draw):
    """One to three routes; the last may stay away."""
    routes, block = [], 1
    for number in range(count := draw(st.integers(1, 3))):
        before = draw(st.sampled_from(["", "<"]))
        words = ["norm", "random", "stride"] if before else ["", "random", "lowest", "received"]
        word = draw(st.sampled_from(words))
        blocks = sorted(draw(st.sets(st.integers(block, block + 9), min_size=1, max_size=4)))
        each = draw(st.booleans())
        if each:
            blocks = [blocks[0], blocks[-1] + 1]
        ratios = [draw(st.decimals(0, 99, places=draw(st.integers(0, 9)))) for _ in ([1] if each else blocks)]
        block = blocks[-1] + draw(st.integers(1, 5))
        ends = [f"+{block}"] if number < count - 1 else [f"+{block}", "", *([] if before else ["+fused"])]
        end = "+next" if each else draw(st.sampled_from(ends))
        inside = ",".join([*(f"{ratio:f}%" for ratio in ratios), *([word] if word else [])])
        routes.append(f"{before}{('..' if each else ',').join(map(str, blocks))}({inside}){end}")
    return ";".join(routes)


@given(specs())
def test_round_trip(spec):
    schedule = parse(spec)
    assert parse(str(schedule)) == schedule
    assert str(parse(str(schedule))) == str(schedule)


@pytest.mark.parametrize(
    "spec",
    [
        *TABLE1,
        "4,7,10(30%,30%,30%)+fused",
        "6(55%)",
        "6(12.5%)+9",
        "4,7(30%,30%,random)+10",
        *(f"6(55%,{ranking})+11" for ranking in RANKINGS[1:] if ranking != "predictor"),
        "4,7,10(30%,30%,30%,predictor)",
        *ROUTES,
    ],
)
def test_canonical_specs_print_as_written(spec):
    assert str(parse(spec)) == spec


def test_keeping_is_exact_arithmetic():
    # in floating point (1 - 0.3) * 10 is 7.000000000000001 in some orders, and its ceiling 8
    for ratio in range(100):
        for patches in (10, 100, 196, 4095):
            geometry = Geometry(
                (1, patches), patch_size=4, embed_dim=8, depth=2, num_heads=2, mlp_dim=32, num_classes=10
            )
            kept = resolve(parse(f"1({ratio}%)"), geometry).tokens_out[0] - 1
            assert kept == -(-(100 - ratio) * patches // 100)


def test_a_drop_of_nothing_is_no_drop():
    for spec in ("6(0%)+11", "6(0%)+fused", "6(0%)"):
        plan, dense = resolve(parse(spec), VIT_S), resolve(Schedule(), VIT_S)
        assert (plan.kept, plan.rejoins, plan.tokens_out, plan.macs) == (
            dense.kept, dense.rejoins, dense.tokens_out, dense.macs)  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("", "notation"),
        ("dense", "notation"),
        ("6(55%)+", "notation"),
        ("6(55%)+11+fused", "notation"),
        ("6 (55%) + 11)", "notation"),
        ("6(55)+11", "percentage"),
        ("6(-5%)+11", "percentage"),
        ("6(100%)+11", "percentage"),
        ("6()", "percentage"),
        ("4,7(30%)+10", "2 blocks and 1 ratios"),
        ("7,4(30%,30%)+10", "increase"),
        ("4,4(30%,30%)+10", "increase"),
        ("0(30%)", "start at 1"),
        ("6(55%)+6", "after the last drop"),
        ("4,7(30%,30%)+7", "after the last drop"),
        ("6(55%)+13", "out of range"),
        ("<3(50%)+10", "no attention yet"),
        ("<3(50%,received)+10", "no attention yet"),
        ("<3(50%,norm)+fused", "no attention yet"),
        ("2..5(50%)", "goes with a range"),
        ("2(50%)+next", "goes with a range"),
        ("5..5(50%)+next", "a later last one"),
        ("2..4(50%,50%)+next", "one ratio for each"),
        ("2..12(50%)+next", "block 13 is out of range"),
        ("2(50%);7(50%)+11", "do not return"),
        ("2(50%)+6;5(50%)+11", "must start in block 6"),
        ("2(50%)+6;none", "notation"),
        ("2(50%)+6;", "notation"),
        ("13(55%)", "out of range"),
        (6, "notation"),
    ],
)
def test_nonsense_is_refused_and_shown(spec, why):
    with pytest.raises(UserError, match=why) as refused:
        resolve(parse(spec), VIT_S)
    assert str(spec) in str(refused.value)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=40), st.text("0123456789,()%+. fusednone", max_size=24)))
def test_any_text_is_read_or_refused(text):
    try:
        assert isinstance(parse(text), Schedule)
    except UserError as refused:
        assert "tokens spec" in str(refused)


@pytest.mark.parametrize(
    ("spec", "align", "tokens"),
    [
        ("none", 16, [197] * 12),
        ("6(0%)+11", 16, [197] * 12),
        ("6(55%)+11", 1, [197] * 5 + [90] * 5 + [197] * 2),
        ("6(55%)+11", 16, [197] * 5 + [96] * 5 + [197] * 2),
        ("6(45%)+fused", 16, [197] * 5 + [112] * 7),
        ("4,7(30%,30%)+10", 16, [197] * 3 + [144] * 3 + [112] * 3 + [197] * 3),
        ("6(1%)+11", 16, [197] * 12),  # 208 tokens would be more than there are
    ],
)
def test_aligned_tokens(spec, align, tokens):
    plan = resolve(parse(spec), replace(VIT_S, align_tokens=align))
    assert list(plan.tokens_out) == tokens
    macs = 196 * 768 * 384 + 384 * 1000
    macs += sum(4 * t * 384**2 + 2 * t * t * 384 for t in plan.tokens_in) + sum(2 * t * 384 * 1536 for t in tokens)
    assert plan.macs == macs


@given(st.integers(1, 99), st.integers(1, 64), st.booleans())
def test_alignment_keeps_more_but_not_much(percent, align, fused):
    spec = f"6({percent}%)" + ("+fused" if fused else "+11")
    plain = resolve(parse(spec), VIT_S).tokens_out[5]
    aligned = resolve(parse(spec), replace(VIT_S, align_tokens=align)).tokens_out[5]
    assert aligned == 197 or (aligned % align == 0 and plain <= aligned < plain + align)


def test_fixed_rankings_are_positions_of_the_plan():
    """On a grid of 3 rows and 4 columns: of the tokens present, stride counts, and centre looks where they are."""
    geometry = Geometry((3, 4), patch_size=4, embed_dim=8, depth=6, num_heads=2, mlp_dim=32, num_classes=10)
    stride = resolve(parse("1,3(50%,50%,stride)+5"), geometry)
    assert [drop and drop.fixed for drop in stride.drops] == [(0, 2, 4, 6, 8, 10), None, (0, 2, 4), None, None, None]
    centre = resolve(parse("1,3(50%,50%,centre)+5"), geometry)
    assert centre.drops[0].fixed == (1, 2, 5, 6, 9, 10)  # rows of 4: the two in the middle, above and below
    assert centre.drops[2].fixed == (0, 2, 3)  # of those the two in the middle, and of four as near the first
    assert all(drop.fixed == () for drop in resolve(parse("1,3(50%,50%)+5"), geometry).drops if drop)
    assert stride.macs == centre.macs == resolve(parse("1,3(50%,50%)+5"), geometry).macs


def test_a_plan_by_scores_holds_no_entry_a_token():
    """A list of as many places would not fit into any memory."""
    vast = replace(VIT_S, grid=(10**8, 10**8))
    assert resolve(parse("6(55%)+11"), vast).kept[5] == 45 * 10**14


def test_without_a_class_token_nothing_ranks_by_it():
    mean = replace(VIT_S, pool="avg")
    for spec in ("6(55%)+11", "6(55%,lowest)+11", "6(45%,norm)+fused"):
        with pytest.raises(UserError, match=r"no \[CLS\] token"):
            resolve(parse(spec), mean)
    assert resolve(parse("6(55%,received)+11"), mean).tokens_out == (*[196] * 5, *[89] * 5, 196, 196)
    assert mean.parameters == VIT_S.parameters - 2 * 384
