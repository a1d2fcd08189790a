"""Bytes and times of graphs, counted from the graphs themselves."""

import re

import pytest

from src.ascend.cost_model import BYTES_PER_S, CUBE_SHARE, MACS_PER_S, MEMORY_SHARE, estimate
from src.ascend.graphs import Node, read_ir
from src.ascend.memory import megabytes
from src.config import ModelConfig
from src.schedules import Geometry, parse, resolve
from src.schedules.paper import TABLE1, fitted_gain
from tests.helpers.commands import run_module

SMALL = ["model.image_size=32", "model.embed_dim=32", "model.num_heads=2", "model.depth=2", "model.num_classes=8"]


def signature(takes, gives):
    return f"  %1(x) = PrimFunc_Add(%a, %b)\n      : ({takes}) -> ({gives})"


@pytest.mark.parametrize(
    ("takes", "gives", "expected"),
    [
        ("<Tensor[Float16], (4, 8)>, <Tensor[Int32], ()>", "<Tensor[Bool], (4)>", 4 * 8 * 2 + 4 + 4),
        ("<Tuple[Tensor[Float16]*2], TupleShape((2, 3), (2, 5)), elements_use_flags={[const vector]{1, 1}}>",
         "<Tensor[Float16], (2, 8)>", 2 * (6 + 10 + 16)),
        ("<Tensor[Float32], (2, 3)>, <Tuple[Int64*2], TupleShape(NoShape, NoShape)>, <Bool, NoShape>",
         "<Tuple[Tensor[Float32],Tensor[Float16]*2], TupleShape((2, 3), (2, 1), (2, 1))>", 4 * 6 + 4 * 6 + 2 * 4),
    ],
)  # fmt: skip
def test_bytes_are_those_of_all_tensors(takes, gives, expected):
    (node,) = read_ir(signature(takes, gives))
    assert node.moved == expected


def product(name, *shapes):
    return Node(name, frozenset({"float16"}), False, (), tuple(("float16", shape) for shape in shapes))


def test_weights_and_renamed_memory_drop_out():
    graphs = {
        batch: [product("MatMul", (batch * 10, 6), (6, 7), (batch * 10, 7)), product("Reshape", (batch, 5), (batch, 5))]
        for batch in (2, 4)
    }
    assert megabytes(graphs)["MatMul"] == pytest.approx(2 * 10 * (6 + 7) / 1e6)
    assert "Reshape" not in megabytes(graphs)


def test_a_product_takes_the_longer_of_its_multiplications_and_its_bytes():
    large, thin = (1024, 1024), (1024, 16)
    by_cube = estimate([product("MatMul", large, large, large)])["MatMul"]
    assert by_cube == pytest.approx(1024**3 / (MACS_PER_S * CUBE_SHARE))
    by_memory = estimate([product("MatMul", thin, (16, 16), thin)])["MatMul"]
    assert by_memory == pytest.approx(2 * (2 * 1024 * 16 + 256) / (BYTES_PER_S * MEMORY_SHARE))
    assert estimate([product("BiasAdd", large, large)]) == {}, "it is part of the product before it"


def test_sides_that_are_no_multiples_of_16_are_padded_and_re_laid_out():
    aligned, odd = (8, 16, 16), (8, 15, 15)
    time = {shape: estimate([product("BatchMatMul", shape, shape, shape)])["BatchMatMul"] for shape in (aligned, odd)}
    assert time[odd] > 2 * time[aligned]


def test_half_of_the_papers_step_does_not_shrink():
    geometry = Geometry.from_config(ModelConfig(num_classes=1000))
    errors = []
    for spec, row in TABLE1.items():
        published = row.img_s / TABLE1["none"].img_s
        errors.append(abs((1 + fitted_gain(resolve(parse(spec), geometry).ideal_gain)) / published - 1))
    assert 0.03 < max(errors) < 0.037


def totals_of(stdout):
    """Return the megabytes that training moves for an image, by network."""
    rows = re.findall(r"^\| ([^|]+) \| \d+ \| (\d+) \| [+-]\d+% \|$", stdout, re.M)
    return {name: int(megabytes) for name, megabytes in rows}


@pytest.mark.slow
def test_the_command_counts_bytes_beside_mindcv_and_estimates_times():
    """Of a ViT-S of two blocks at 224 pixels; the bounds are what it moved when they were set."""
    done = run_module("src.tools.ascend_check", "--bytes", "--specs", "none", "1(55%)+2", "model.depth=2")
    assert done.returncode == 0, done.stderr[-2000:]
    totals = totals_of(done.stdout)
    assert list(totals) == ["MindCV's VisionTransformer", "`none`", "`1(55%)+2`"]
    peer, dense, skipping = totals.values()
    assert dense <= 68 < 0.72 * peer
    assert skipping <= 64
    assert "Not run on a 910A" in done.stdout
    options = ["--specs", "none", "1(55%)+2", *SMALL]
    done = run_module("src.tools.ascend_check", "--estimate", "data.batch_size=8", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| `1(55%)+2` | 3 5 |" in done.stdout
    assert "not run on a 910A" in done.stdout


@pytest.mark.long
def test_bytes_an_image_of_vit_s_do_not_grow():
    """The bounds that were set: 400 MB dense, 310 MB with 6(55%)+11, each a fifth below MindCV's class."""
    done = run_module("src.tools.ascend_check", "--bytes", "--specs", "none", "6(55%)+11")
    assert done.returncode == 0, done.stderr[-2000:]
    totals = totals_of(done.stdout)
    assert list(totals)[1] == "`none`"
    peer, dense_mb, skipping_mb = totals.values()
    assert dense_mb <= 385 < 400
    assert skipping_mb <= 307 < 310
    assert max(dense_mb, skipping_mb) <= 0.8 * peer
