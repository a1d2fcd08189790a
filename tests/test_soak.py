"""The soak of hostile files and failing file systems, in short."""

import pytest

from tests import soak_files


@pytest.mark.parametrize(("part", "size"), [("configs", 12), ("images", 15), ("faults", 20)])
def test_a_short_soak(part, size, capsys):
    """Hostile checkpoints, every kind once, are in tests/weights/test_hostile.py."""
    results = soak_files.run(part, 0, size, seed=1)
    assert len(results) == size
    assert [result for result in results if result["outcome"] in soak_files.FAULTS] == []
    assert {result["outcome"] for result in results} == {"used", "refused"}
    assert max(result["seconds"] for result in results) < soak_files.LONGEST


def test_a_fault_is_not_taken_for_a_refusal(tmp_path):
    def trial(error):
        def fail(path):
            raise error

        return soak_files._outcome(fail, tmp_path)[0]

    assert trial(KeyError("x")) == "traceback"
    assert trial(AssertionError("x")) == "lost"
    assert trial(ValueError("x")) == "traceback"
    assert trial(MemoryError()) == "refused"
