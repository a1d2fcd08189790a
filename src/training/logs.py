"""The lines that a training logs: what it is about to do, and each epoch's results."""

import logging

from src.config import Config, side_text, with_classes
from src.data.datasets import Dataset
from src.runs import Metrics
from src.runtime.distributed import ProcessGroup
from src.schedules import Geometry, parse
from src.schedules.costs import run_costs, trained_lengths
from src.schedules.notation import without_oracle
from src.schedules.phases import count_graphs, evaluated_tokens, plan_phases, ranks_by_predictor, trained_tokens
from src.training.checkpoint import TrainingProgress
from src.training.optimizer import peak_lr, warmup_epochs

# docs/ascend.md, counted by `ascend_check --bytes` of ViT-S
ERF_ON_ASCEND = (
    "model.act gelu_erf: Ascend 910A has no one operator for it; elementary ones move 1.5 times the bytes of a dense"
    " training step, and its gradient in MindSpore 2.10 has a route since 2.6 alone; gelu_tanh is one operator"
)

NOTABLE_WAIT = 0.05  # of an epoch's time

log = logging.getLogger("skipvit")


def log_setup(config: Config, dataset: Dataset, group: ProcessGroup, progress: TrainingProgress) -> None:
    """Log the model, the data, the learning rate and the phases of a training, and where a resume begins."""
    config = with_classes(config, len(dataset.classes))
    geometry = Geometry.from_config(config.model)
    train, val = dataset.splits["train"], dataset.splits["val"]
    log.info(
        "%s: %s parameters; %d classes, %d training and %d validation images in %s",
        config.model.name, f"{geometry.parameters:,}", len(dataset.classes), train.num_images, val.num_images,
        config.data.root,
    )  # fmt: skip
    batch, added = config.data.batch_size, config.train.accumulate
    log.info(
        "%d process%s of batch %d%s, together %d; peak learning rate %.3g (%s)",
        group.size, "es" if group.size > 1 else "", batch, f", {added} of them an update" if added > 1 else "",
        batch * added * group.size, peak_lr(config, group.size), _lr_rule(config),
    )  # fmt: skip
    if config.runtime.device_target == "Ascend" and config.model.act == "gelu_erf":
        log.warning(ERF_ON_ASCEND)
    if peak_lr(config, group.size) < config.optimizer.min_lr:
        log.info("that is below optimizer.min_lr %g: it does not fall after the warm-up", config.optimizer.min_lr)
    frozen = config.train.freeze_blocks
    if frozen is not None:
        log.info("the embedding and %d of %d blocks are frozen", frozen, geometry.depth)
    if frozen is not None and config.train.init is None:
        log.warning("train.freeze_blocks without train.init: what is frozen stays as it was drawn at random")
    if config.predictor.teacher is None and any(ranks_by_predictor(phase.tokens) for phase in plan_phases(config)):
        log.info("predictor.teacher is null: predictors learn without a teacher's classes and tokens")
    warmup, asked = warmup_epochs(config), config.optimizer.warmup_epochs
    if 0 < warmup < asked:
        log.info("optimizer.warmup_epochs %d is cut to %d, for the run is short", asked, warmup)
    log_phases(config, progress.epoch)
    epochs = config.train.epochs
    if progress.epoch >= epochs:
        log.info("nothing to do: %d of %d epochs are done", progress.epoch, epochs)
    elif progress != TrainingProgress():
        log.info("resuming after epoch %d, step %d of the next", progress.epoch, len(progress.losses))


def log_phases(config: Config, done: int) -> None:
    """Log the phases of a run, and what of it looks like a mistake.

    Args:
        done: Epochs done before a resume.
    """
    costs = run_costs(config)
    phases, last = costs.phases, costs.phases[-1]
    for phase, plan in zip(phases, costs.plans):
        size = "" if phase.image_size == config.model.image_size else f" on images of {side_text(phase.image_size)}"
        log.info(
            "phase %d, epochs %d-%d: %s%s, tokens leaving each block %s, %.3f GMACs, ideal gain %.1f%%",
            phase.number, phase.first, phase.last, phase.tokens, size, tuple(trained_lengths(plan)),
            plan.trained_macs / 1e9, 100 * costs.gain_of(plan),
        )  # fmt: skip
        if plan.schedule.routes and not any(plan.kept):
            log.warning("%s drops no token of this model: look at model.align_tokens and image_size", phase.tokens)
    if config.train.tokens is not None and config.train.tokens != config.model.tokens:
        log.info("evaluated under model.tokens %s in every phase", config.model.tokens)
    if len(phases) > 1 or costs.plans[0].masked:
        log.info("%s", costs.summary())
    graphs = count_graphs([phase for phase in phases if done < phase.last])
    log.info("%d training graph%s will be compiled", graphs, "" if graphs == 1 else "s")
    epochs, tokens = config.train.epochs, trained_tokens(config)
    if config.train.warmup_dense_epochs and last.tokens != tokens:
        what = f"all {epochs} epochs are" if epochs > 1 else "the one epoch is"
        log.warning("%s dense warm-up: %s is never trained", what, tokens)
    elif config.train.tokens is None and parse(without_oracle(last.tokens)) != parse(config.model.tokens):
        log.warning(
            "the last phase trains %s and evaluates %s, but best.ckpt will be used under model.tokens %s;"
            " set model.tokens to what is to be used, or train.tokens to have that evaluated in every phase",
            last.tokens, evaluated_tokens(config, last), config.model.tokens,
        )  # fmt: skip


def log_epoch(row: Metrics, epochs: int, skipped: int, waiting: float, left: str) -> None:
    """Log an epoch's results, out of so many epochs, with the steps skipped and the time left.

    Args:
        waiting: Share of the time in which steps waited for images; logged where it is notable.
    """
    log.info(
        "epoch %d/%d %s: loss %.4f, lr %.2e, %s%s%s left%s%s",
        row.epoch, epochs, row.tokens, row.loss, row.lr,
        "" if row.top1 is None else f"top-1 {row.top1:.2f}%, ",
        "" if row.img_s is None else f"{row.img_s:.0f} img/s, ",
        left,
        f", {waiting:.0%} of the time waiting for images: raise data.workers" if waiting > NOTABLE_WAIT else "",
        f", {skipped} steps were not finite" if skipped else "",
    )  # fmt: skip


def _lr_rule(config: Config) -> str:
    lr, batch = config.optimizer.lr, config.optimizer.lr_batch_size
    return f"{lr:g} for a batch of {batch}, scaled with the batch" if batch else "not scaled with the batch"
