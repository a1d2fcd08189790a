"""The planner: its numbers are the schedule's and the benchmark's, and it finds what reaches the target."""

import os
import re
import signal
import subprocess
import sys

import pytest

from src.errors import UserError
from src.models.schedule import Geometry, parse, resolve
from src.tools import plan
from src.tools.experiments import Result, Row, summarise
from tests.conftest import ROOT, run_module

VIT_S = Geometry(196, 768, 12, 384, 1536, 1000)


def test_every_plan_reaches_the_target_by_the_least_ratio():
    found = plan.find(VIT_S, 0.25, max_drop=60, from_block=4)
    assert len(found) == len({str(p.schedule) for p in found}) > 10
    for candidate in found:
        again = resolve(parse(str(candidate.schedule)), VIT_S)
        assert (again.ideal_gain, again.tokens_out) == (candidate.ideal_gain, candidate.tokens_out)
        assert candidate.ideal_gain >= 0.25
        ratios = [stage.ratio * 100 for stage in candidate.schedule.stages]
        assert max(ratios) <= 60
        assert candidate.schedule.stages[0].block >= 4
        spec = str(candidate.schedule)
        lower = spec.replace(f"{int(ratios[0])}%", f"{int(ratios[0]) - 5}%")
        assert ratios[0] == 5 or resolve(parse(lower), VIT_S).ideal_gain < 0.25


def test_the_papers_schedules_are_found_by_name():
    specs = ["6(55%)+11", "6(50%)+11", "6(35%)+11", "5(59%)+11", "none"]
    by_name = {str(p.schedule) for p in plan.find(VIT_S, 0.2, 60, 6, specs)}
    assert by_name - {str(p.schedule) for p in plan.find(VIT_S, 0.2, 60, 6)} == {"6(55%)+11", "6(50%)+11"}


def test_alignment_counts():
    aligned = Geometry(196, 768, 12, 384, 1536, 1000, align_tokens=16)
    for candidate in plan.find(aligned, 0.25, 60, 4):
        assert all(tokens % 16 == 0 or tokens == 197 for tokens in candidate.tokens_out)


def test_nothing_found_is_said():
    with pytest.raises(UserError, match=r"no schedule with drops of up to 10% is 2 times as fast; lower"):
        plan.find(VIT_S, 1.0, 10)
    with pytest.raises(UserError, match=r"--from-block 13 is out of range: the model has blocks 1 to 12"):
        plan.find(VIT_S, 0.2, 60, 13)


def result(tokens, seed, top1):
    return Result(tokens, "", seed, 10, top1, top1, 100.0, 1.0, 0.1)


def test_known_schedules_come_with_their_accuracy():
    tops = {"none": (90.0, 91.0), "5(60%)+12": (89.0, 92.0), "5(50%)+12": (89.0, 89.9), "4(50%)+11": (95.0,)}
    known = {"mine": summarise([result(spec, *run) for spec, runs in tops.items() for run in enumerate(runs)])}
    plans = plan.find(VIT_S, 0.25, 60, 4, plan._specs(known))
    chosen = sorted(plans, key=lambda p: plan._place(p, known))
    text = plan.table(chosen, known, {})
    assert "mine: top-1" in text
    lines = text.splitlines()[2:]
    assert lines[0].startswith("| `6(55%)+11` | 197 90 | 54% | +27.0% | -0.01 |")
    specs = [line.split("`")[1] for line in lines[:5]]
    assert specs[:3] == ["6(55%)+11", "4,7(30%,30%)+11", "6(45%)+fused"]  # the paper's
    assert specs[3:] == ["5(50%)+12", "5(60%)+12"]  # by the lower end of the interval, not by one seed's luck
    assert "| +0.00 ± 12.71 |" in text
    assert known["mine"][Row("none")].difference is None


def test_who_reads_only_the_first_lines_sees_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "src.tools.plan", "--target-speedup", "1.25"]
    with os.fdopen(writer, "w") as output:
        done = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_the_command_with_measuring(tmp_path):
    small = ["model.embed_dim=16", "model.num_heads=2", "model.depth=3", "model.image_size=16", "model.patch_size=4",
             "data.batch_size=4", "train.amp_level=O0", "runtime.fused_kernels=off"]  # fmt: skip
    options = ["--target-speedup", "1.2", "--limit", "1", "--from-block", "1", "--measure", "--pairs", "1",
               "--device_target", "CPU"]  # fmt: skip
    done = run_module("src.tools.plan", *options, *small, "model.num_classes=null", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("model.num_classes is null, for the data decides it: counted with 1000\n")
    assert "measured gain" in done.stdout
    assert re.search(r" \| [+-][\d.]+% \([+-][\d.]+ to [+-][\d.]+\) \| ", done.stdout)
    for option in (["--target-speedup", "1"], ["--target-speedup", "1.2", "--max-drop", "100"]):
        refused = run_module("src.tools.plan", *option, cwd=tmp_path)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert "must be above 1, --max-drop" in refused.stderr
    refused = run_module("src.tools.plan", "--target-speedup", "9", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith("error: no schedule with drops of up to 60% is 9 times as fast")
