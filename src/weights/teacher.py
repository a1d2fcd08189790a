"""The training of predictors, and the network that they are taught by, compared with a configuration."""

from collections.abc import Sequence
from typing import Optional

from src.config import Config, PredictorConfig, first_changed
from src.errors import UserError, difference
from src.schedules import Geometry, Phase, Plan, parse, plan_phases, resolve
from src.schedules.phases import ranks_by_predictor
from src.weights.frozen import Frozen, read_frozen, with_costs

DISTILS = ("logits_weight", "tokens_weight")


def check_predictor(config: Config) -> None:
    """Refuse a training of predictors that cannot be, and settings of one that is none.

    Raises:
        UserError: There are.
    """
    phases, options = plan_phases(config), config.predictor
    asked = [phase.tokens for phase in phases if ranks_by_predictor(phase.tokens)]
    if not asked:
        if changed := first_changed(options):
            raise UserError(
                f"predictor.{changed}: no schedule of the training ranks by predictor; write the ranking, as in"
                " model.tokens='4,7,10(30%,30%,30%,predictor)', or leave it out"
            )
        return
    if problem := _problem(config, phases, asked[0]):
        raise UserError(problem)


def _problem(config: Config, phases: Sequence[Phase], asked: str) -> Optional[str]:
    """Return what is wrong with a training of predictors."""
    options, labels = config.predictor, first_changed(config.token_labels)
    weights = {name: getattr(options, name) for name in DISTILS}
    if config.train.oracle is not None:
        return f"train.oracle and {asked} exclude each other: an oracle ranks in place of predictors"
    if labels:
        return (
            f"token_labels.{labels}: {asked} learns from labels of images and from a teacher; label tokens in a run"
            " before, and start from it by train.init"
        )
    if config.model.pool != "cls":
        return f"model.pool {config.model.pool}: {asked} is trained for a head that reads [CLS]; leave it at cls"
    alone = [name for name in DISTILS if weights[name] != getattr(PredictorConfig(), name)]
    if options.teacher is None and alone:
        return f"predictor.{alone[0]} {weights[alone[0]]:g}: there is no teacher; name its weights by predictor.teacher"
    if options.teacher is not None and not any(weights.values()):
        return f"predictor.teacher {options.teacher}: nothing is learnt from it with weights of 0; leave it out"
    return _problem_of_frozen_epochs(config, phases)


def _problem_of_frozen_epochs(config: Config, phases: Sequence[Phase]) -> Optional[str]:
    frozen = config.predictor.frozen_epochs
    for phase in phases:
        if phase.first <= frozen and not ranks_by_predictor(phase.tokens):
            return (
                f"predictor.frozen_epochs {frozen}: in epochs {phase.first} to {phase.last} of them {phase.tokens} asks"
                " no predictor, so that nothing would be trained; let the first phase rank by predictor"
            )
    if frozen and config.train.init is None:
        return (
            f"predictor.frozen_epochs {frozen}: what is frozen would be random; name the weights of a trained network"
            " by train.init, or set it to 0"
        )
    return None


def read_teacher(name: str, config: Config, classes: Sequence[str] = ()) -> Frozen:
    """Read the file that `predictor.teacher` names.

    Args:
        classes: Of the data, where they are known.

    Raises:
        UserError: The file is missing, unreadable or damaged, or its network cannot teach this one.
    """
    teacher, key = read_frozen("predictor.teacher", name, config), f"predictor.teacher {name}"
    taught, own = teacher.geometry, Geometry.from_config(config.model)
    if taught.num_classes != own.num_classes:
        raise UserError(
            f"{key}: it has {taught.num_classes} outputs, this model {own.num_classes}; name one of the data's"
        )
    if classes and teacher.file.classes and teacher.file.classes != tuple(classes):
        differing = difference(teacher.file.classes, tuple(classes), "the file", "the data")
        raise UserError(f"{key}: it tells other classes apart: {differing}")
    if config.predictor.tokens_weight and own.labels_tokens and not taught.labels_tokens:
        raise UserError(f"{key}: it has no head for patch tokens to learn from; set predictor.tokens_weight=0")
    if config.predictor.tokens_weight and not own.labels_tokens and taught.embed_dim != own.embed_dim:
        raise UserError(
            f"{key}: its tokens have {taught.embed_dim} channels, those of this model {own.embed_dim}, and cannot be"
            " compared; set predictor.tokens_weight=0"
        )
    return with_costs(teacher, config, lambda phase, plan: _forward(taught, phase, plan))


def _forward(teacher: Geometry, phase: Phase, plan: Plan) -> tuple[str, int]:
    return "", resolve(parse("none"), teacher.at(phase.image_size)).macs if plan.masked else 0
