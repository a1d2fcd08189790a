"""The search: its numbers are the schedule's, and it finds what reaches the target."""

from dataclasses import replace

import pytest

from src.config import ModelConfig
from src.errors import UserError
from src.schedules import Geometry, parse, resolve
from src.schedules.search import find

VIT_S = Geometry.from_config(ModelConfig(num_classes=1000))


def test_every_plan_reaches_the_target_by_the_least_ratio():
    found = find(VIT_S, 0.25, max_drop=60, from_block=4)
    assert len(found) == len({str(p.schedule) for p in found}) > 10
    for candidate in found:
        again = resolve(parse(str(candidate.schedule)), VIT_S)
        assert (again.ideal_gain, again.tokens_out) == (candidate.ideal_gain, candidate.tokens_out)
        assert candidate.ideal_gain >= 0.25
        ratios = [stage.ratio * 100 for stage in candidate.schedule.routes[0].stages]
        assert max(ratios) <= 60
        assert candidate.schedule.routes[0].stages[0].block >= 4
        spec = str(candidate.schedule)
        lower = spec.replace(f"{int(ratios[0])}%", f"{int(ratios[0]) - 5}%")
        assert ratios[0] == 5 or resolve(parse(lower), VIT_S).ideal_gain < 0.25


def test_the_papers_schedules_are_found_by_name():
    specs = ["6(55%)+11", "6(50%)+11", "6(35%)+11", "5(59%)+11", "none"]
    by_name = {str(p.schedule) for p in find(VIT_S, 0.2, 60, 6, specs)}
    assert by_name - {str(p.schedule) for p in find(VIT_S, 0.2, 60, 6)} == {"6(55%)+11", "6(50%)+11"}


def test_alignment_counts():
    aligned = replace(VIT_S, align_tokens=16)
    for candidate in find(aligned, 0.25, 60, 4):
        assert all(tokens % 16 == 0 or tokens == 197 for tokens in candidate.tokens_out)


def test_nothing_found_is_said():
    with pytest.raises(UserError, match=r"no schedule with drops of up to 10% is 2 times as fast; lower"):
        find(VIT_S, 1.0, 10)
    with pytest.raises(UserError, match=r"--from-block 13 is out of range: the model has blocks 1 to 12"):
        find(VIT_S, 0.2, 60, 13)
