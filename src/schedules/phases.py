"""The phases of a run: spans of epochs that train under one schedule, at one image size, with one policy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Optional

from src.config import Config, ImageSize, PhaseConfig, with_tokens
from src.errors import UserError
from src.schedules.curves import plateaus
from src.schedules.geometry import Geometry
from src.schedules.notation import parse, without_oracle
from src.schedules.plan import Plan, resolve


@dataclass(frozen=True)
class Phase:
    """Epochs `first` to `last`, counted from 1 and both included, and how they train.

    Attributes:
        tokens: The schedule.
        image_size: Of the training images. Evaluation is at `model.image_size`.
        auto_augment: The policy of augmentation, if there is one.
    """

    number: int
    tokens: str
    first: int
    last: int
    image_size: ImageSize = 0
    auto_augment: Optional[str] = None

    @property
    def epochs(self) -> int:
        return self.last - self.first + 1

    @property
    def graph(self) -> tuple[str, ImageSize]:
        """What decides the training graph: phases in a row that agree in it share theirs."""
        return self.tokens, self.image_size

    @property
    def images(self) -> tuple[ImageSize, Optional[str]]:
        """What decides how the training images are made."""
        return self.image_size, self.auto_augment


def plan_phases(config: Config) -> list[Phase]:
    """Return the phases of a run: those of `train.phases`, or a dense warm-up and then the schedule (arXiv 2401.15293).

    Raises:
        UserError: A curve is refused.
    """
    phases: list[Phase] = []
    for tokens, epochs, listed in _spans(config):
        first = phases[-1].last + 1 if phases else 1
        size, policy = config.model.image_size, config.data.auto_augment
        if listed is not None:
            size = listed.image_size or size
            policy = {None: policy, "none": None}.get(listed.auto_augment, listed.auto_augment)
        phases.append(Phase(len(phases) + 1, tokens, first, first + epochs - 1, size, policy))
    return phases


def config_of(config: Config, phase: Phase) -> Config:
    """Return the configuration of a phase's training: its schedule, image size and policy."""
    config = with_tokens(config, phase.tokens, phase.image_size)
    return replace(config, data=replace(config.data, auto_augment=phase.auto_augment))


def resolve_phases(config: Config) -> list[tuple[Phase, Plan]]:
    """Return the phases of a run with their plans.

    Raises:
        UserError: A schedule does not fit the model at its phase's size, or a size no multiple of the patch size.
    """
    geometry = Geometry.from_config(config.model)
    resolved = []
    for phase in plan_phases(config):
        try:
            resolved.append((phase, resolve(parse(phase.tokens), geometry.at(phase.image_size))))
        except UserError as refused:
            where = f"train.phases: phase {phase.number}: " if config.train.phases else ""
            raise UserError(f"{where}{refused}") from refused
    return resolved


def count_graphs(phases: Sequence[Phase]) -> int:
    """Return how many training graphs are compiled: one for each phase with another than the phase before."""
    return sum(phase.graph != before.graph for before, phase in zip(phases, phases[1:])) + bool(phases)


def trained_tokens(config: Config) -> str:
    """Return the schedule of training, of phases that name none."""
    return config.model.tokens if config.train.tokens is None else config.train.tokens


def evaluated_tokens(config: Config, phase: Phase) -> str:
    """Return the schedule of a phase's evaluation: the phase's own; where `train.tokens` is set, `model.tokens`.

    An oracle ranks in training alone.
    """
    return without_oracle(phase.tokens) if config.train.tokens is None else config.model.tokens


def ranks_by_oracle(tokens: str) -> bool:
    """Tell whether a schedule asks an oracle."""
    return "oracle" in parse(tokens).rankings


def ranks_by_predictor(tokens: str) -> bool:
    """Tell whether a schedule asks predictors."""
    return parse(tokens).predictors > 0


def with_predictors(config: Config, *specs: str) -> Config:
    """Fill in `model.predictors` where it is null and any schedule of the run, or of others, asks predictors."""
    train = config.train
    listed = [spec for phase in train.phases or () for spec in (phase.tokens, phase.from_tokens)]
    asked = max(map(_count_predictors, (config.model.tokens, train.tokens, *listed, *specs)))
    if config.model.predictors is not None or not asked:
        return config
    return replace(config, model=replace(config.model, predictors=asked))


def _count_predictors(spec: Optional[str]) -> int:
    try:
        return 0 if spec is None else parse(spec).predictors
    except UserError:  # whoever resolves it says where it stands
        return 0


def _spans(config: Config) -> Iterator[tuple[str, int, Optional[PhaseConfig]]]:
    """Yield the schedule of each phase, its number of epochs, and the entry of the list that it comes from."""
    train = config.train
    tokens = trained_tokens(config)
    if train.phases is None:
        warmup = 0 if tokens == "none" else min(train.warmup_dense_epochs, train.epochs)
        spans = (("none", warmup), (tokens, train.epochs - warmup))
        yield from ((spec, epochs, None) for spec, epochs in spans if epochs)
        return
    for number, listed in enumerate(train.phases, 1):
        own = listed.tokens or tokens
        if listed.curve is None:
            yield own, listed.epochs, listed
            continue
        try:
            geometry = Geometry.from_config(config.model).at(listed.image_size or config.model.image_size)
            for spec, epochs in plateaus(listed, own, geometry):
                yield spec, epochs, listed
        except UserError as refused:
            raise UserError(f"train.phases: phase {number}: {refused}") from refused
