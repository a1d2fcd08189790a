"""Two ranks stop together, and resume to what they would have reached."""

import random

import pytest

from tests import torture_ranks


@pytest.mark.slow
def test_a_signal_at_one_rank_stops_both_at_the_same_step(tmp_path, monkeypatch):
    """Rank 1 gets the signal; rank 0 saves, and alone says how to resume."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torture_ranks, "SIGNALLED", ("one rank",))
    said = torture_ranks.torture(0, 1, random.Random(3))
    assert "1 stopped and saved" in said or "1 stopped before the first step" in said
