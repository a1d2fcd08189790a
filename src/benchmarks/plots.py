"""The plot of a benchmark."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt


def plot(report: dict, path: Path) -> None:
    """Draw images per second of every schedule (and peer), and gain beside ideal gain, as PNG."""
    rows, peers = report["rows"], [peer for peer in report["peers"] if peer["name"].startswith("train")]
    names = [row["spec"] for row in rows] + [peer["name"].removeprefix("train ") for peer in peers]
    speeds = [row["train_img_s"] for row in rows] + [peer["img_s"] for peer in peers]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 0.4 * len(names) + 2), layout="constrained")
    left.barh(names, speeds, color=["#2a6f97"] * len(rows) + ["#adb5bd"] * len(peers))
    for y, speed in enumerate(speeds):
        left.text(speed, y, f" {speed:.1f}", va="center")
    left.set_xlim(0, 1.2 * max(speeds))
    left.invert_yaxis()
    left.set_xlabel("training, images per second")
    specs = [row["spec"] for row in rows[1:]]
    if specs:
        positions = range(len(specs))
        right.barh(
            [i - 0.2 for i in positions],
            [100 * row["gain"] for row in rows[1:]],
            0.4,
            label="measured",
            color="#2a6f97",
        )
        right.barh(
            [i + 0.2 for i in positions],
            [100 * row["ideal_gain"] for row in rows[1:]],
            0.4,
            label="ideal",
            color="#e9c46a",
        )
        right.set_yticks(list(positions), specs)
        right.invert_yaxis()
        right.legend()
    right.set_xlabel("training gain over the dense model, %")
    facts = report["environment"]
    figure.suptitle(
        f"{facts['model']}, {facts['image_size']}, batch {facts['batch_size']}, {facts['precision']}\n"
        f"{facts['hardware']}, MindSpore {facts['mindspore']}, {facts['date']}",
        fontsize=9,
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)
