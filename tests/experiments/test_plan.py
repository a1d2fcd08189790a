"""The planner: what is known of schedules beside what they gain, in its order."""

import os
import re
import signal
import subprocess
import sys

import pytest

from src.config import ModelConfig
from src.experiments import candidates
from src.experiments.results import TrainingResult, summarise
from src.experiments.variants import Variant
from src.schedules import Geometry
from src.schedules.search import find
from tests.helpers.commands import ROOT, run_here

VIT_S = Geometry.from_config(ModelConfig(num_classes=1000))


def result(tokens, seed, top1):
    return TrainingResult(tokens, "", seed, 10, top1, top1, 100.0, 1.0, 0.1)


def test_known_schedules_come_with_their_accuracy():
    tops = {"none": (90.0, 91.0), "5(60%)+12": (89.0, 92.0), "5(50%)+12": (89.0, 89.9), "4(50%)+11": (95.0,)}
    known = {"mine": summarise([result(spec, *run) for spec, runs in tops.items() for run in enumerate(runs)])}
    plans = find(VIT_S, 0.25, 60, 4, candidates.known_specs(known))
    chosen = sorted(plans, key=lambda p: candidates.sort_key(p, known))
    text = candidates.table(chosen, known, {})
    assert "mine: top-1" in text
    lines = text.splitlines()[2:]
    assert lines[0].startswith("| `6(55%)+11` | 197 90 | 54% | +27.0% | -0.01 |")
    specs = [line.split("`")[1] for line in lines[:5]]
    assert specs[:3] == ["6(55%)+11", "4,7(30%,30%)+11", "6(45%)+fused"]  # the paper's
    assert specs[3:] == ["5(50%)+12", "5(60%)+12"]  # by the lower end of the interval, not by one seed's luck
    assert "| +0.00 ± 12.71 |" in text
    assert known["mine"][Variant("none")].difference is None


def test_relatives_of_other_papers_are_known():
    plans = find(VIT_S, 0.7, 60, 2, candidates.known_specs({}))
    assert "<2..11(50%,random)+next" in {str(plan.schedule) for plan in plans}
    assert not [plan for plan in find(VIT_S, 0.7, 60, 4, candidates.known_specs({})) if "random" in str(plan.schedule)]


def test_who_reads_only_the_first_lines_sees_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "src.tools.plan", "--target-speedup", "1.25"]
    with os.fdopen(writer, "w") as output:
        done = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.slow
def test_the_command_with_measuring(tmp_path):
    small = ["model.embed_dim=16", "model.num_heads=2", "model.depth=3", "model.image_size=16", "model.patch_size=4",
             "data.batch_size=4", "train.amp_level=O0", "runtime.fused_kernels=off"]  # fmt: skip
    options = ["--target-speedup", "1.2", "--limit", "1", "--from-block", "1", "--measure", "--pairs", "1",
               "--device_target", "CPU"]  # fmt: skip
    done = run_here("src.tools.plan", *options, *small, "model.num_classes=null", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("model.num_classes is null, for the data decides it: counted with 1000\n")
    assert "measured gain" in done.stdout
    assert re.search(r" \| [+-][\d.]+% \([+-][\d.]+ to [+-][\d.]+\) \| ", done.stdout)


def test_the_phases_of_a_run_are_printed(tmp_path):
    phases = "train.phases=[{epochs: 30, tokens: none, image_size: 96}, {epochs: 10, tokens: 6(55%)+11}]"
    done = run_here("src.tools.plan", "--phases", "model.num_classes=1000", phases, cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert "| 1 | 1-30 | `none` | 96 | 444 | 0.809 | +468.3% |" in lines
    assert "| 2 | 31-40 | `6(55%)+11` | 224 | 1,829 | 3.621 | +27.0% |" in lines
    assert lines[-1].startswith(
        "the whole run: 1.512 GMACs an image, dense 4.599; ideal gain +204.1% (3.0412 times); 2"
    )
    assert "not allowed with" in run_here("src.tools.plan", "--phases", "--target-speedup", "2", cwd=tmp_path).stderr
