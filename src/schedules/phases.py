"""The phases of a run: dense warm-up, then the schedule (SkipViT, arXiv 2401.15293, section 4). One graph a phase."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """Epochs `first` to `last`, counted from 1 and both included, that train under one schedule."""

    number: int
    tokens: str
    first: int
    last: int


def plan_phases(tokens: str, epochs: int, warmup_dense_epochs: int) -> list[Phase]:
    """Return the phases of a run; each compiles one training graph."""
    warmup = 0 if tokens == "none" else min(warmup_dense_epochs, epochs)
    spans = [("none", 1, warmup), (tokens, warmup + 1, epochs)]
    spans = [span for span in spans if span[1] <= span[2]]
    return [Phase(number, *span) for number, span in enumerate(spans, 1)]
