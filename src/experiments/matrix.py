"""One checkpoint under many schedules: what a schedule costs without training for it. Never imports MindSpore."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src import markdown
from src.data.datasets import class_name
from src.experiments.grids import by_share, panels
from src.files import make_folder, write_csv, write_text
from src.schedules import Plan, parse

if TYPE_CHECKING:
    from src.training.evaluate import Answers

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Row:
    """A schedule's accuracy.

    Attributes:
        top1, top5: Percent.
        low, high: The 95% interval of top-1 (Wilson's, of a binomial share), percent.
        loss: Mean cross-entropy of the images whose logits are finite.
        macs: Multiply-accumulates of an image.
        lost, won: Images that the first schedule has right and this one wrong, and the other way round.
    """

    tokens: str
    images: int
    top1: float
    low: float
    high: float
    top5: float
    loss: float
    macs: int
    lost: int
    won: int


def rows_of(plans: Sequence[Plan], answers: "Sequence[Answers]") -> list[Row]:
    """Return a row for each schedule; `answers` are those of the same images."""
    from scipy import stats  # half a second

    rows, first = [], answers[0].hits[:, 0]
    for plan, said in zip(plans, answers):
        right, top5, images, _ = said.count()
        interval = stats.binomtest(right, images).proportion_ci(CONFIDENCE, method="wilson")
        own = said.hits[:, 0]
        lost, won = _alone(first, own)
        finite = said.loss[np.isfinite(said.loss)]
        rows.append(
            Row(
                str(plan.schedule), images, round(100 * right / images, 4), round(100 * interval.low, 2),
                round(100 * interval.high, 2), round(100 * top5 / images, 4),
                round(float(finite.mean()), 6) if len(finite) else float("nan"), plan.macs, lost, won,
            )
        )  # fmt: skip
    return rows


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown."""
    header = [
        "schedule",
        "GMACs",
        "top-1 (95% interval)",
        "top-5",
        "loss",
        f"lost to `{rows[0].tokens}`",
        "won from it",
    ]
    cells = [
        [
            f"`{row.tokens}`", f"{row.macs / 1e9:.4g}", f"{row.top1:.2f} ({row.low:.2f} to {row.high:.2f})",
            f"{row.top5:.2f}", f"{row.loss:.4f}", str(row.lost), str(row.won),
        ]
        for row in rows
    ]  # fmt: skip
    return markdown.table(header, cells)


def write(folder: Path, rows: Sequence[Row], answers: "Sequence[Answers]", classes: Sequence[str]) -> None:
    """Write evaluation.csv and table.md, plots, classes.csv, pairs.csv (of schedules), predictions.csv (of images).

    Raises:
        UserError, RunError: The folder cannot be made, or a file not be written.
    """
    from src.experiments import plots  # matplotlib, for those who want it

    make_folder(folder, "--output")
    fields = list(Row.__dataclass_fields__)
    write_csv(folder / "evaluation.csv", fields, ([getattr(row, name) for name in fields] for row in rows))
    write_text(folder / "table.md", table(rows))
    specs = [row.tokens for row in rows]
    labels = answers[0].labels
    shares = [
        [
            class_name(classes, index),
            int((labels == index).sum()),
            *(_share(said.hits[labels == index, 0]) for said in answers),
        ]
        for index in np.unique(labels).tolist()
    ]
    write_csv(folder / "classes.csv", ["class", "images", *specs], shares)
    write_csv(folder / "pairs.csv", ["first", "second", "first_alone", "second_alone", "p"], _pairs(specs, answers))
    columns = ["image", "class", *(f"{spec} {what}" for spec in specs for what in ("predicted", "probability"))]
    write_csv(folder / "predictions.csv", columns, _predictions(labels, answers, classes))
    plots.plot_matrix(by_ranking(rows), folder / "accuracy.png")
    of = {row.tokens: row for row in rows}
    lines = {ranking: {share: of[spec] for share, spec in line.items()} for ranking, line in by_share(of).items()}
    if lines:
        plots.plot_shares(lines, of.get("none"), folder / "shares.png")
    differences = {row.tokens: row.top1 - rows[0].top1 for row in rows}
    gains = {row.tokens: rows[0].macs / row.macs - 1 for row in rows}
    grid = panels(differences, gains, rows[0].tokens, rows[0].top1)
    if grid:
        plots.plot_distances(grid, folder / "distance.png")


def by_ranking(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    """Return the rows by what their schedules rank tokens by, each from few to many multiply-accumulates."""
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.macs):
        groups.setdefault(", ".join(dict.fromkeys(parse(row.tokens).rankings)) or "dense", []).append(row)
    return groups


def _pairs(specs: Sequence[str], answers: "Sequence[Answers]") -> Iterable[list[object]]:
    """Yield of every two schedules the images that one of them alone has right, and McNemar's exact two-sided p."""
    from scipy import stats

    said = list(zip(specs, (each.hits[:, 0] for each in answers)))
    for (first, right), (second, other) in itertools.combinations(said, 2):
        alone, others = _alone(right, other)
        p = stats.binomtest(alone, alone + others).pvalue if alone + others else 1.0
        yield [first, second, alone, others, f"{p:.4g}"]


def _alone(hits: np.ndarray, others: np.ndarray) -> tuple[int, int]:
    """Return how many images one alone has right, and the other alone."""
    return int((hits & ~others).sum()), int((others & ~hits).sum())


def _share(hits: np.ndarray) -> str:
    return f"{100 * hits.mean():.4f}"


def _predictions(labels: np.ndarray, answers: "Sequence[Answers]", classes: Sequence[str]) -> Iterable[list[object]]:
    for image, label in enumerate(labels.tolist()):
        said = [(class_name(classes, int(each.best[image, 0])), f"{each.probability[image]:.6f}") for each in answers]
        yield [image, class_name(classes, label), *(cell for pair in said for cell in pair)]
