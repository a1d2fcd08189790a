"""What the phases of a run cost in multiply-accumulates, beside a dense run at the final image size."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional

from src import markdown
from src.config import Config, side_text
from src.schedules.curves import uncut_macs
from src.schedules.geometry import Geometry
from src.schedules.notation import parse
from src.schedules.phases import Phase, count_graphs, resolve_phases, trained_tokens, with_predictors
from src.schedules.plan import Plan, resolve

NO_FASTER = "predictors learn with all tokens in every block, which is no faster than dense"
MASKED = NO_FASTER + "; inference takes {} GMACs, ideal gain {:+.1f}%"


@dataclass(frozen=True)
class RunCosts:
    """The phases of a run, their plans, and what they cost.

    Attributes:
        dense: Multiply-accumulates of the dense model for an image of the final size.
        uncut: Those of the whole run, the mean over its epochs, if its curves were not cut into plateaus; None without.
    """

    phases: tuple[Phase, ...]
    plans: tuple[Plan, ...]
    dense: int
    uncut: Optional[float] = None

    @property
    def macs(self) -> float:
        """Multiply-accumulates of a training image, the mean over the run's epochs."""
        total = sum(phase.epochs * plan.trained_macs for phase, plan in zip(self.phases, self.plans))
        return total / self.phases[-1].last

    @property
    def ideal_gain(self) -> float:
        """How much faster the run would be than a dense one by its multiply-accumulates, a fraction."""
        return self.dense / self.macs - 1

    def gain_of(self, plan: Plan) -> float:
        """Return the ideal gain of a phase, over the dense model at the final size, a fraction."""
        return self.dense / plan.trained_macs - 1

    def table(self) -> str:
        """Return the phases as Markdown, a row each, and a line on the run."""
        header = ["phase", "epochs", "schedule", "image size", "tokens of all blocks", "GMACs", "ideal gain"]
        rows = [
            [str(phase.number), f"{phase.first}-{phase.last}", f"`{phase.tokens}`", side_text(phase.image_size),
             f"{sum(trained_lengths(plan)):,}", _giga(plan.trained_macs), f"{100 * self.gain_of(plan):+.1f}%"]
            for phase, plan in zip(self.phases, self.plans)
        ]  # fmt: skip
        return f"{markdown.table(header, rows)}\n{self.summary()}\n"

    def summary(self) -> str:
        """Return in a line what the run costs, and how many training graphs it compiles."""
        graphs = count_graphs(self.phases)
        text = f"the whole run: {_giga(self.macs)} GMACs an image, dense {_giga(self.dense)}; "
        text += f"ideal gain {100 * self.ideal_gain:+.1f}% ({1 + self.ideal_gain:.4f} times); "
        if self.uncut is not None:
            text += f"curves without plateaus: {_giga(self.uncut)} GMACs ({self.dense / self.uncut:.4f} times); "
        text += f"{graphs} training graph{'' if graphs == 1 else 's'}"
        masked = [plan for plan in self.plans if plan.masked]
        return f"{text}; {MASKED.format(_giga(masked[-1].macs), 100 * masked[-1].ideal_gain)}" if masked else text


def trained_lengths(plan: Plan) -> Sequence[int]:
    """Return the tokens that leave each block in training."""
    return [plan.prefix + plan.num_patches] * len(plan.tokens_out) if plan.masked else plan.tokens_out


def run_costs(config: Config) -> RunCosts:
    """Count what the phases of a run cost.

    Raises:
        UserError: A schedule does not fit the model, or a size no multiple of the patch size.
    """
    config = with_predictors(config)
    phases, plans = zip(*resolve_phases(config))
    dense = resolve(parse("none"), Geometry.from_config(config.model)).macs
    costs = RunCosts(phases, plans, dense)
    return replace(costs, uncut=_uncut(config, costs))


def _uncut(config: Config, costs: RunCosts) -> Optional[float]:
    """Return the mean multiply-accumulates of an image if the run's curves were not cut; None if it has none."""
    listed, total, done = config.train.phases or (), costs.macs * costs.phases[-1].last, 0
    if not any(entry.curve for entry in listed):
        return None
    for entry in listed:
        if entry.curve is not None:
            model = replace(config.model, image_size=entry.image_size or config.model.image_size)
            uncut = uncut_macs(entry, entry.tokens or trained_tokens(config), Geometry.from_config(model))
            cut = [
                p.epochs * q.trained_macs
                for p, q in zip(costs.phases, costs.plans)
                if done < p.first <= done + entry.epochs
            ]
            total += entry.epochs * uncut - sum(cut)
        done += entry.epochs
    return total / done


def _giga(macs: float) -> str:
    return f"{macs / 1e9:.3f}" if macs >= 1e8 else f"{macs / 1e9:.3g}"
