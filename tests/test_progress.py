"""Progress in plain lines."""

import logging

from src import progress


def test_lines_and_time_left_where_there_is_no_terminal(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, logger="skipvit"), progress.Progress(100, "training", "img", done=20) as bar:
        now[0] = 50.0  # compiling
        bar.advance(10, "loss 1.0")
        assert bar.left() == "?"
        now[0] = 60.0
        bar.advance(10, "loss 0.9")
        assert bar.left() == "01:00"
        now[0] = 90.0
        bar.advance(10, "loss 0.8")
        now[0] = 121.0
        bar.advance(10)
    assert [record.getMessage() for record in caplog.records] == [
        "training 30/100 img loss 1.0, ? left",
        "training 50/100 img loss 0.8, 01:40 left",
        "training 60/100 img, 01:34 left",
    ]
