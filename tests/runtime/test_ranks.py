"""Two ranks under msrun stop together, wait for each other, and train across launches as within one."""

import signal
import subprocess
import time
from dataclasses import replace

import pytest

from src.config import Config
from src.models import from_config
from src.training.checkpoint import save_weights
from tests import torture_ranks
from tests.helpers import hostile
from tests.helpers.commands import ROOT
from tests.helpers.msrun import environment, free_port, msrun, worker
from tests.torture import check
from tests.torture_ranks import SECONDS_TO_END, end_of, how_it_ended, log_of, start


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with a run of two ranks that was left alone: `whole`."""
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert end_of(start(folder / "whole")) == 0, log_of(folder / "whole", 0)
    return folder


@pytest.mark.long
def test_signals_one_after_the_other_stop_both_at_one_step(two, monkeypatch):
    """The second comes when the first rank is about to stop or to end; rank 0 alone says how to resume."""
    monkeypatch.chdir(two)
    run = two / "run"
    job = start(run)
    patience = time.monotonic() + 120
    while "epoch 1/3" not in log_of(run, 0):
        assert time.monotonic() < patience
        assert job.poll() is None, log_of(run, 0)
        time.sleep(0.1)
    for rank in (1, 0):
        torture_ranks.stop(worker(rank, f"run.dir={run}"), signal.SIGTERM)
        time.sleep(0.5)
    code = end_of(job, SECONDS_TO_END)
    assert how_it_ended(run, "both ranks", signal.SIGTERM, code, trained=True) == "stopped and saved"
    assert end_of(start(run, resume=True)) == 0
    check(run, two / "whole")


@pytest.mark.long
def test_two_launches_train_as_one(two, monkeypatch):
    """As on two machines.

    On this one both launches take themselves for the first machine's and start a scheduler, of which one fails, and its
    launch with it; the training itself goes to its end.
    """
    monkeypatch.chdir(two)
    port = free_port()
    first, second = (start(two / "run2", local=1, port=port, node_rank=rank) for rank in (0, 1))
    codes = [end_of(first), end_of(second)]
    assert sorted(codes) == [0, 1], log_of(two / "run2", 0)
    check(two / "run2", two / "whole")


@pytest.mark.long
def test_no_rank_waits_long_for_anothers_look(two, monkeypatch):
    """One rank looks at its images for 37 s, and no wait of the other reaches the 20 s that it may take here."""
    monkeypatch.chdir(two)
    monkeypatch.setenv("MS_CPU_COMM_OP_TIMEOUT", "20")
    monkeypatch.setenv("XDG_CACHE_HOME", str(two / "cache"))  # nothing is remembered
    began = time.monotonic()
    assert end_of(start(two / "run3", script="tests/helpers/slow_look.py")) == 0, log_of(two / "run3", 0)
    assert time.monotonic() - began > 37
    check(two / "run3", two / "whole")


@pytest.mark.slow
def test_a_rank_that_dies_before_all_have_joined_ends_the_job(tmp_path, monkeypatch):
    """msrun waits for its scheduler, which waits 10 minutes for those that have not joined."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    job = start(run)
    while (process := worker(1, f"run.dir={run}")) is None:
        assert job.poll() is None
        time.sleep(0.1)
    torture_ranks.stop(process, signal.SIGKILL)
    assert end_of(job, SECONDS_TO_END) != 0


@pytest.mark.slow
def test_ranks_end_with_an_msrun_that_is_killed_before_they_have_joined(tmp_path, monkeypatch):
    """Waiting for each other they run no Python, so no handler of a signal either, for 10 minutes."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    job = start(run)
    while not all(worker(rank, f"run.dir={run}") for rank in range(2)):
        assert job.poll() is None
        time.sleep(0.1)
    time.sleep(1)  # until Python runs
    torture_ranks.stop(job.pid, signal.SIGKILL)
    end_of(job, SECONDS_TO_END)
    began = time.monotonic()
    while any(worker(rank, f"run.dir={run}") for rank in range(2)):
        assert time.monotonic() - began < SECONDS_TO_END
        time.sleep(0.1)


@pytest.mark.slow
def test_a_signal_at_one_rank_ends_the_evaluation_of_both(photos, tmp_path, monkeypatch):
    """Of 9 images in batches of one; the first rank speaks for both, and tells no accuracy."""
    monkeypatch.chdir(tmp_path)
    model = replace(hostile.MODEL, image_size=16)
    config = replace(Config(), model=model, data=replace(Config().data, root=str(photos), batch_size=1, workers=1))
    save_weights(tmp_path / "best.ckpt", config, from_config(model))
    arguments = ["--distribute", "--ckpt", str(tmp_path / "best.ckpt"), "runtime.device_target=CPU"]
    plain = ["train.amp_level=O0", "runtime.fused_kernels=off"]
    script = str(ROOT / "tests/helpers/signalled_eval.py")
    command = msrun(2, tmp_path / "logs", script, *arguments, *plain)
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=2 * SECONDS_TO_END, check=False
    )
    first, second = ((tmp_path / f"logs/worker_{rank}.log").read_text() for rank in (0, 1))
    assert done.returncode == 1, first + second
    assert "Error code: 143" in done.stdout + done.stderr  # of the first that ended; msrun names no other
    said = [[line for line in log.splitlines() if "SIGTERM" in line] for log in (first, second)]
    assert said == [["SIGTERM: stopped"], ["SIGTERM: stopping after this step; once more to stop at once"]]
    assert "Traceback" not in first + second
    assert "top1" not in first + second
