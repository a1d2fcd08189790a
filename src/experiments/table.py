"""The table of an experiment, in the paper's form."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Optional

from src import markdown
from src.config import Config
from src.experiments import paired
from src.experiments.paired import Rule
from src.experiments.results import Reached, Summary
from src.experiments.variants import Variant

ENOUGH = 0.9  # probability of showing what is there, as trials are commonly planned for


def table(summaries: Mapping[Variant, Summary], rule: Optional[Rule] = None) -> str:
    """Return the table as Markdown; what is known of no variant has no column.

    Args:
        rule: By which a variant is called not worse; None: no such column.
    """
    always: dict[str, Callable[[Summary], str]] = {
        "schedule": lambda found: label(found.variant),
        "seeds": lambda found: str(found.seeds),
        "training img/s": lambda found: "" if found.img_s is None else f"{found.img_s:.4g}",
        "gain": lambda found: "" if found.gain is None else f"{100 * found.gain:+.1f}%",
        "ideal gain": lambda found: "" if math.isnan(found.ideal_gain) else f"{100 * found.ideal_gain:+.1f}%",
        "top-1": accuracy,
        "difference to dense (95% interval)": difference,
    }
    known: dict[str, Callable[[Summary], str]] = {
        "not worse": lambda found: verdict(found, rule),
        "multiplications": lambda found: "" if found.cost is None else f"{found.cost:.2f}",
        "time": lambda found: "" if found.time is None else f"{found.time:.2f}",
        "multiplications to dense top-1": lambda found: when(found.reached, lambda reached: reached.cost),
        "time to dense top-1": lambda found: when(found.reached, lambda reached: reached.time),
    }
    known = {name: cell for name, cell in known.items() if any(cell(found) for found in summaries.values())}
    columns = {**always, **known}
    return markdown.table(list(columns), [[cell(found) for cell in columns.values()] for found in summaries.values()])


def notes(summaries: Mapping[Variant, Summary], config: Config, rule: Rule, measured: Optional[str]) -> str:
    """Return what stands below the table: its conditions, its rules, and what the names of rows stand for.

    Args:
        measured: Conditions under which the speeds were measured; None if they are those of the trainings.
    """
    where = "of the trainings themselves, beside whatever ran then; --measure compares better"
    paragraphs = [
        f"{config.train.epochs} epochs, {config.train.warmup_dense_epochs} of them dense unless said otherwise; top-1"
        " after the last one in percent, mean ± standard deviation over seeds; differences are of the same seed."
        f" Training speed: {measured or where}.",
        _test_note([found.differences for found in summaries.values()], rule),
        _cost_note(measured) if any(found.reached for found in summaries.values()) else "",
        "\n".join(f"- {variant.name}: {_contents(variant)}" for variant in summaries if variant.name),
    ]
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def _test_note(groups: Sequence[Sequence[float]], rule: Rule) -> str:
    """Return the rule of the test, and how likely it shows a variant that loses nothing; empty without two pairs."""
    sd = paired.pooled_sd(groups)
    if sd is None:
        return ""
    allowed, fewest = rule.allowed, [rule.pairs] if rule.pairs > Rule.pairs else []
    counts = sorted({*fewest, *(len(group) for group in groups if len(group) > 1)})
    powers = [f"{100 * paired.power(pairs, sd, allowed):.0f}% with {pairs} pairs" for pairs in counts]
    needed = next((pairs for pairs in range(2, 200) if paired.power(pairs, sd, allowed) >= ENOUGH), None)
    more = f"; {100 * ENOUGH:.0f}% takes {needed}" if needed else ""
    tests = [paired.not_worse(group, allowed) for group in groups if len(group) >= rule.pairs]
    some_worse = any(test and test.is_worse for test in tests)
    worse = " Worse: the same test shows a loss, and does not exclude that much." if some_worse else ""
    few = f" With fewer than {rule.pairs} pairs nothing is said." if fewest else ""
    return (
        f"Not worse by {allowed}: a one-sided t test over pairs, dense and the row's training with the same seed,"
        f" rejects a loss of {allowed} points of top-1 or more with p < {paired.ALPHA}; nothing is corrected for the"
        f" number of rows.{few}{worse} Where nothing is lost it shows that with a probability of {', '.join(powers)}"
        f"{more} (standard deviation of a difference: {sd:.2f}, pooled over the rows)."
    )


def _cost_note(measured: Optional[str]) -> str:
    time = "at the measured speeds, without compiling" if measured else "of the epochs as they were, with compiling"
    return (
        "Multiplications (of training) and time are relative to the whole dense training of the same seed, medians over"
        f" seeds; time is {time}. To dense top-1: until the first evaluated epoch after which top-1 never falls below"
        " that of the dense model's last epoch, so that one lucky epoch does not count; a seed that never gets there"
        " counts as later than all others. The dense row is under the same rule."
    )


def verdict(found: Summary, rule: Optional[Rule]) -> str:
    """Return what the test of non-inferiority says, or of how many pairs it would."""
    if rule is None or not found.differences:
        return ""
    if len(found.differences) < rule.pairs:
        return f"no verdict: {len(found.differences)} of {rule.pairs} pairs"
    return str(paired.not_worse(found.differences, rule.allowed))


def when(reached: Optional[Reached], measure: Callable[[Reached], Optional[float]]) -> str:
    """Return when the dense accuracy was reached, or that it was not, and by how many seeds if not by all."""
    value = measure(reached) if reached else None
    if reached is None or value is None:
        return ""
    seeds = "" if reached.seeds == reached.of else f" ({reached.seeds} of {reached.of} seeds)"
    return (f"{value:.2f}" if math.isfinite(value) else "not reached") + (seeds if reached.seeds else "")


def label(variant: Variant) -> str:
    """Return a variant's name, or its schedule and overrides."""
    return variant.name or _contents(variant)


def _contents(variant: Variant) -> str:
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
