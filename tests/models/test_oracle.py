"""Tokens that an oracle ranks: agreement with the reference."""

import mindcv
import numpy as np
import pytest
from mindspore import Tensor
from safetensors.numpy import save_file

from src.models.oracle import OracleRanked
from src.weights import load_timm
from src.weights.oracle import block_of
from tests.helpers import reference
from tests.helpers.modes import pynative

SIZES = {"image_size": 16, "patch_size": 4, "num_heads": 4, "num_classes": 5, "act": "gelu_erf"}


def network(path, spec, **sizes):
    net = mindcv.create_model("skipvit_s_16_224", tokens=spec, **{**SIZES, "embed_dim": 24, "depth": 4, **sizes})
    load_timm(net, path)
    return net.set_train(False)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A network of 4 blocks, and an oracle twice as deep and wider: the files of both, weights in float64, images."""
    folder = tmp_path_factory.mktemp("oracle")
    found = {"images": np.random.RandomState(1).standard_normal((3, 3, 16, 16)).astype(np.float32)}
    for name, sizes in (("student", {"depth": 4}), ("oracle", {"dim": 32, "depth": 8, "hidden": 64})):
        weights = reference.random_weights(len(name), **sizes)
        stored = {key: weight.astype(np.float32) for key, weight in weights.items()}
        save_file(stored, folder / f"{name}.safetensors")
        found[name] = {key: weight.astype(np.float64) for key, weight in stored.items()}
        found[f"{name}'s file"] = folder / f"{name}.safetensors"
    return found


def kept_of(plan, ids):
    """The places that each drop keeps: what `ids` picks, of what those before it left; -1 for a fused token."""
    places, kept, number = np.tile(np.arange(plan.num_patches), (len(ids[0]), 1)), {}, 0
    for block, drop in enumerate(plan.drops):
        if plan.rejoins[block]:
            places = np.tile(np.arange(plan.num_patches), (len(ids[0]), 1))
        if drop:
            chosen = ids[number].asnumpy()[:, 1 : 1 + drop.keep] - 1
            places, number = np.take_along_axis(places, chosen, 1), number + 1
            kept[block + 1] = places
            if drop.fused:
                places = np.concatenate([places, np.full((len(places), 1), -1)], 1)
    return kept


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["1,2,3(30%,30%,30%,oracle)+fused", "1(50%,oracle)+2;3(50%,oracle)+4"])
def test_what_stays_is_what_the_oracle_attends_to(case, spec):
    """Logits and kept tokens by the reference, which differ from those of the network's own ranking."""
    student = network(case["student's file"], spec)
    oracle = network(case["oracle's file"], "none", embed_dim=32, depth=8, mlp_ratio=2.0)
    told = reference.oracle_scores(case["oracle"], case["images"])
    told = {block: told[2 * block] for block in range(1, 5)}  # a block of 4 asks the one of 8 that is as far
    logits, kept = reference.forward(case["student"], case["images"], spec, oracle=told)
    ranked = OracleRanked(student, oracle)
    images = Tensor(case["images"])
    assert np.abs(ranked(images).asnumpy() - logits).max() < 2e-4
    with pynative():
        _, _, ids = student.forward_with_scores(images, None, ranked.ranks(images))
    found = kept_of(student.plan, ids)
    assert found.keys() == kept.keys()
    for block, places in found.items():
        assert [set(row) - {-1} for row in places] == [set(row[row < 16]) for row in kept[block]]
    own, _ = reference.forward(case["student"], case["images"], spec.replace(",oracle", ""))
    assert np.abs(own - logits).max() > 1e-2


def test_blocks_are_as_far_through_the_oracle():
    assert [block_of(block, 12, 12) for block in (0, 5, 11)] == [0, 5, 11]
    assert [block_of(block, 12, 24) for block in (0, 5, 11)] == [1, 11, 23]
    assert [block_of(block, 12, 6) for block in (0, 1, 5, 11)] == [0, 0, 2, 5]
