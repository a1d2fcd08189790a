"""The test of «not worse», beside scipy's own, beside figures by hand, and beside chance."""

import math

import numpy as np
import pytest
from scipy import stats

from src.experiments.paired import ALPHA, NotWorse, margin, not_worse, pooled_sd, power

CASES = [[0.2, -0.1, 0.4, 0.1], [-0.9, -1.1, -1.0], [1.5, -2.0], [-3.0, -2.5, -2.8, -3.1, -2.9]]


@pytest.mark.parametrize("allowed", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("differences", CASES)
def test_it_is_scipys(differences, allowed):
    expected = stats.ttest_1samp(differences, popmean=-allowed, alternative="greater").pvalue
    assert math.isclose(not_worse(differences, allowed).p, expected, rel_tol=1e-9)


def test_a_case_by_hand():
    """Mean 0.1, deviation 0.1, three pairs: t = 1.1 / (0.1 / sqrt 3), and with 2 degrees P = (1 - t/sqrt(t²+2)) / 2."""
    t = 1.1 / (0.1 / math.sqrt(3))
    found = not_worse([0.0, 0.1, 0.2], 1.0)
    assert math.isclose(found.p, (1 - t / math.sqrt(t * t + 2)) / 2, rel_tol=1e-9)
    assert str(found) == "not worse by 1.0 (p = 0.00137)"


def test_what_is_not_shown():
    assert not_worse([-0.9, -1.1, -1.0], 1.0).p == pytest.approx(0.5)  # at the margin itself
    assert str(not_worse([-0.9, -1.5, -0.6], 1.0)) == "not shown (p = 0.5)"
    assert not not_worse([0.0, 0.5, -0.5], 1.0).is_shown  # no loss, but too few seeds for their noise
    assert not_worse([0.0, 0.05, -0.05], 1.0).is_shown
    assert not not_worse([0.0, 0.05, -0.05], 0.1).is_shown  # the margin decides
    assert not_worse([5.0], 1.0) is None
    assert not NotWorse(1.0, ALPHA).is_shown


def test_equal_pairs_have_no_noise():
    assert str(not_worse([0.0, 0.0], 1.0)) == "not worse by 1.0 (p < 0.001)"
    assert str(not_worse([-1.0, -1.0], 1.0)) == "worse (p < 0.001)"


def test_a_loss_is_shown_where_no_loss_is_excluded():
    losses = [-0.9, -1.1, -1.0]
    found = not_worse(losses, 1.0)
    expected = stats.ttest_1samp(losses, popmean=0, alternative="less").pvalue
    assert math.isclose(found.p_lost, expected, rel_tol=1e-9)
    assert str(found) == "worse (p = 0.00166)"
    assert str(not_worse(losses, 2.0)) == "not worse by 2.0 (p = 0.00166)"  # a loss, but not of so much
    assert not not_worse([-1.5, -0.5, -1.2], 1.0).is_worse  # too few for their noise


def test_the_power_is_how_often_it_is_shown():
    random = np.random.default_rng(0)
    for pairs, sd in ((4, 0.5), (6, 0.8)):
        trials = random.normal(0.0, sd, (20_000, pairs))
        p = stats.ttest_1samp(trials, popmean=-1.0, alternative="greater", axis=1).pvalue
        assert math.isclose(power(pairs, sd, 1.0), np.mean(p < ALPHA), abs_tol=0.015)
    lost = random.normal(-1.0, 0.5, (20_000, 4))
    wrong = np.mean(stats.ttest_1samp(lost, popmean=-1.0, alternative="greater", axis=1).pvalue < ALPHA)
    assert wrong < 0.015  # of what loses the margin, one in a hundred is shown


def test_deviations_are_pooled_within_groups():
    assert math.isclose(pooled_sd([[0.0, 2.0], [10.0, 11.0, 12.0], [5.0]]), math.sqrt((2 + 2) / 3))
    assert pooled_sd([[1.0], []]) is None


def test_an_interval_is_students():
    assert math.isclose(margin([1.0, 2.0, 3.0]), 4.30265273 / math.sqrt(3), rel_tol=1e-6)
    assert margin([1.0]) is None
