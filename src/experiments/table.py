"""The table of an experiment, in the paper's form."""

from collections.abc import Mapping

from src import markdown
from src.config import Config
from src.experiments.results import Summary, Variant


def table(summaries: Mapping[Variant, Summary]) -> str:
    """Return the table as Markdown."""
    header = [
        "schedule",
        "seeds",
        "training img/s",
        "gain",
        "ideal gain",
        "top-1",
        "difference to dense (95% interval)",
    ]
    rows = [
        [
            label(variant),
            str(found.seeds),
            "" if found.img_s is None else f"{found.img_s:.4g}",
            "" if found.gain is None else f"{100 * found.gain:+.1f}%",
            f"{100 * found.ideal_gain:+.1f}%",
            accuracy(found),
            difference(found),
        ]
        for variant, found in summaries.items()
    ]
    return markdown.table(header, rows)


def note(config: Config) -> str:
    """Return the conditions that stand below the table."""
    return (
        f"{config.train.epochs} epochs, {config.train.warmup_dense_epochs} of them dense unless said otherwise; top-1"
        " after the last one in percent, mean ± standard deviation over seeds; differences are of the same seed."
    )


def label(variant: Variant) -> str:
    """Return a variant's name."""
    return ", ".join(f"`{part}`" for part in (variant.tokens, *variant.overrides))


def accuracy(found: Summary) -> str:
    """Return top-1 in percent, with the standard deviation over seeds."""
    return f"{found.top1:.2f}" + ("" if found.sd is None else f" ± {found.sd:.2f}")


def difference(found: Summary) -> str:
    """Return the percentage points of top-1 to the dense model, with the 95% interval."""
    if found.difference is None:
        return ""
    if found.margin is None:
        return f"{found.difference:+.2f}"
    low, high = found.difference - found.margin, found.difference + found.margin
    return f"{found.difference:+.2f} ({low:+.2f} to {high:+.2f})"
