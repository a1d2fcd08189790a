"""The fast path of CPU: the environment before MindSpore loads, the fallback, and equal results with and without."""

import importlib.util
import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from src.errors import UserError
from src.runtime import device
from tests.helpers.commands import ROOT


def python(code, **environment):
    """Run code in a fresh interpreter, without what this one's import of src has set."""
    names = ("OMP_WAIT_POLICY", "MS_COMPILER_CACHE_PATH", "GLOG_v", "MS_GRAPH_KERNEL_TILING")
    clean = {key: value for key, value in os.environ.items() if key not in names}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env={**clean, **environment}, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


def test_the_environment_is_set_before_mindspore_is_imported(tmp_path):
    code = "import sys, os, src; assert 'mindspore' not in sys.modules; print(os.environ['OMP_WAIT_POLICY'])"
    assert python(code) == "PASSIVE"
    assert python(code, OMP_WAIT_POLICY="ACTIVE") == "ACTIVE"  # the user's own settings stay
    cache = "import os, src.models; print(os.environ['MS_COMPILER_CACHE_PATH'])"
    assert python(cache, XDG_CACHE_HOME=str(tmp_path)) == str(tmp_path / "skipvit-mindspore")
    assert python("import mindspore, os, src; print('OMP_WAIT_POLICY' in os.environ)") == "False"


def test_the_cache_that_mixes_up_schedules_is_refused(monkeypatch):
    monkeypatch.setenv("MS_COMPILER_CACHE_ENABLE", "1")
    with pytest.raises(UserError, match=r"MS_COMPILER_CACHE_ENABLE is set: .* unset it"):
        device.set_up("CPU", fused_kernels="off")


def test_sink_mode_is_refused_on_cpu():
    with pytest.raises(UserError, match=r"runtime\.sink true: CPU has no queue of data; set it to false"):
        device.set_up("CPU", fused_kernels="off", sink=True)


@pytest.fixture
def restored():
    yield
    device.set_up("CPU", fused_kernels="off")


@pytest.mark.parametrize("absent", ["mindspore._akg", "decorator"])
def test_without_akg_one_line_says_why_and_plain_kernels_run(monkeypatch, caplog, restored, absent):
    import mindspore as ms

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else find_spec(name))
    with caplog.at_level(logging.INFO, logger="skipvit"):
        device.set_up("CPU", fused_kernels="auto")
    (line,) = caplog.records
    assert "fused kernels are off" in line.getMessage()
    assert not ms.get_context("enable_graph_kernel")
    with pytest.raises(UserError, match=r"runtime\.fused_kernels on: "):
        device.set_up("CPU", fused_kernels="on")


def test_a_compiler_that_fails_is_a_line_too(monkeypatch, caplog, restored, tmp_path):
    import mindspore as ms

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MS_COMPILER_CACHE_PATH", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.INFO, logger="skipvit"):
        device.set_up("CPU", fused_kernels="auto")
    assert "AKG does not start" in caplog.text
    assert not ms.get_context("enable_graph_kernel")


@pytest.mark.parametrize(
    ("environment", "amp_level", "why"), [("ACTIVE", "O0", "OMP_WAIT_POLICY"), ("PASSIVE", "O2", "float16")]
)
def test_where_it_would_not_pay_or_not_work_it_is_off(monkeypatch, restored, environment, amp_level, why):
    monkeypatch.setenv("OMP_WAIT_POLICY", environment)
    with pytest.raises(UserError, match=why):
        device.set_up("CPU", fused_kernels="on", amp_level=amp_level)


TRAIN = """
import sys; from src.runtime import device
device.set_up("CPU", fused_kernels=sys.argv[1])
import numpy as np, mindspore as ms
from tests.training.test_training import LABELS, make_config, one_step
from pathlib import Path
assert ms.get_context("enable_graph_kernel") == (sys.argv[1] == "on")
_, after, losses, _, _ = one_step(make_config(Path(sys.argv[2])), LABELS, steps=5)
np.savez(sys.argv[3], losses=losses, **after)
"""


@pytest.mark.slow
def test_two_runs_of_a_seed_end_in_the_same_weights_with_and_without_fused_kernels(tmp_path):
    results = {}
    for kernels in ("on", "off"):
        for number in (1, 2):
            file = tmp_path / f"{kernels}{number}.npz"
            command = [sys.executable, "-c", TRAIN, kernels, str(tmp_path), str(file)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=300, check=True)
            results[kernels, number] = np.load(file)
    for kernels in ("on", "off"):
        first, second = results[kernels, 1], results[kernels, 2]
        assert all((first[name] == second[name]).all() for name in first.files)
    assert np.allclose(results["on", 1]["losses"], results["off", 1]["losses"], rtol=1e-4)


def test_fused_kernels_are_compiled_for_avx512_where_the_processor_has_all_of_it(monkeypatch):
    features = "flags : fpu avx2 avx512f avx512bw avx512cd avx512dq avx512vl"
    for text, expected in [(features, True), (features.replace("avx512bw", ""), False), ("flags : avx2", False)]:
        monkeypatch.setattr(device.Path, "read_text", lambda path, encoding, text=text: text)
        assert ("--cpu_feature=avx512" in device.fusion_flags()) == expected

    def missing(path, encoding):
        raise FileNotFoundError(path)

    monkeypatch.setattr(device.Path, "read_text", missing)
    assert device.fusion_flags() == device.FUSION_FLAGS


COMPILE = """
import sys
import mindspore as ms
from src.runtime import device

class Network(ms.nn.Cell):
    def construct(self, x):
        return ms.ops.exp(x) * x - x

device.set_up("CPU", fused_kernels="on")  # the second time its kernel is cached, and the next is the first to compile
if len(sys.argv) > 1:
    device.compile_ahead(Network(), ms.Tensor([1.0], ms.float32))
print("end", file=sys.stderr)
"""


@pytest.mark.slow
def test_what_llvm_says_of_every_kernel_stays_off_the_terminal(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MS_COMPILER_CACHE_PATH": str(tmp_path)}
    script = tmp_path / "script.py"  # MindSpore reads the network's source
    script.write_text(COMPILE)
    for arguments in ([], ["compile"]):
        command = [sys.executable, script, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "end\n")
    assert list(tmp_path.glob("akg_kernel_meta/*Exp*.so"))
