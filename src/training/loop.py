"""The training loop. It knows a network only as images → logits, with `with_tokens` for another schedule."""

import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

import numpy as np
from mindspore import nn

from src import runtime
from src.config import Config, peak_lr
from src.data import Source, batches, steps_of_epoch, train_loader, val_loader
from src.distributed import ALONE, Group
from src.training.checkpoint import Reached, restore_state, save_network, save_state
from src.training.evaluate import evaluate
from src.training.optimizer import learning_rates
from src.training.phases import Phase, plan_phases
from src.training.progress import Progress
from src.training.run_folder import RunFolder
from src.training.state import State, new_state
from src.training.step import TrainStep

STEPS_BETWEEN_NOTES = 10

log = logging.getLogger("skipvit")


@dataclass(frozen=True)
class Epoch:
    """What the training part of one epoch came to.

    Compiling is in `seconds` and not in `img_s`. `skipped` counts the steps whose loss or gradients were not finite.
    """

    loss: float
    lr: float
    img_s: float
    seconds: float
    skipped: int


def train(
    config: Config, source: Source, build: Callable[[], nn.Cell], run: RunFolder, resume: bool, group: Group = ALONE
) -> None:
    """Train from the beginning, or from the run's last checkpoint, to the last epoch.

    Args:
        config: The resolved configuration.
        source: The data, with the splits "train" and "val".
        build: Makes the network.
        run: The run folder: a row of metrics and the checkpoints are written after each epoch, by the first process.
        resume: Go on from the run's last.ckpt, where there is one yet.
        group: The processes that train together; every one calls this.
    """
    runtime.set_seeds(config.train.seed)
    steps = steps_of_epoch(source, config, group)
    rates = learning_rates(config, steps, group.size)
    state = new_state(config, build, rates)
    reached = restore_state(run.last, state) if resume and run.last.exists() else Reached()
    phases = plan_phases(config.model.tokens, config.train.epochs, config.train.warmup_dense_epochs)
    _announce(config, source, state, phases, reached, group)
    images = steps * config.data.batch_size * group.size
    graphs = 0
    with Progress(images * config.train.epochs, "training", "img", done=images * reached.epoch) as progress:
        for phase in phases:
            if reached.epoch < phase.last:
                gc.collect()  # a network that is freed while another compiles makes that one compile twice
                step = state.step(config, phase.tokens, group)
                reached = _train_phase(config, source, run, state, phase, step, rates, reached, progress, group)
                graphs += len(step.compile_cache)
                del step
    log.info("done: %d training graphs compiled, best top-1 %.2f%%, in %s", graphs, reached.best_top1, run.best)


def _train_phase(
    config: Config,
    source: Source,
    run: RunFolder,
    state: State,
    phase: Phase,
    step: TrainStep,
    rates: list[float],
    reached: Reached,
    progress: Progress,
    group: Group,
) -> Reached:
    evaluated = state.weights_to_use().with_tokens(phase.tokens)
    for number in range(max(phase.first, reached.epoch + 1), phase.last + 1):
        epoch = _train_epoch(config, source, step, number, rates, progress, group)
        accuracy = None
        if number % config.train.eval_every == 0 or number == phase.last:
            accuracy = evaluate(evaluated, val_loader(source, config, group), config.data.batch_size, group)
        top1, top5 = (accuracy.top1, accuracy.top5) if accuracy else (None, None)
        improved = top1 is not None and (phase.number, top1) > (reached.best_phase, reached.best_top1)
        best = (phase.number, top1) if improved else (reached.best_phase, reached.best_top1)
        reached = Reached(number, *best)
        if group.leads:
            save_state(run.last, state, reached)
            if improved:
                save_network(run.best, evaluated)
            run.write_row(_row(number, phase, epoch, top1, top5))
        _report(config, phase, number, epoch, top1, progress)
    return reached


def _train_epoch(
    config: Config, source: Source, step: TrainStep, number: int, rates: list[float], progress: Progress, group: Group
) -> Epoch:
    runtime.set_seeds(config.train.seed, number, group.rank)
    loader = train_loader(source, config, step.network.geometry.num_classes, number, group)
    first = (number - 1) * loader.get_dataset_size()
    step.set_train()
    losses, finite = [], []
    started = computing = time.monotonic()
    for index, (images, labels) in enumerate(batches(loader, config.runtime.sink)):
        if not step.compile_cache:
            runtime.compile_ahead(step, images, labels)
            computing = time.monotonic()
        loss, is_finite = step(images, labels)
        losses.append(loss)
        finite.append(is_finite)
        note = ""
        if index % STEPS_BETWEEN_NOTES == 0:
            note = f"epoch {number} loss {float(loss.asnumpy()):.4f} lr {rates[first + index]:.2e}"
        progress.advance(len(images) * group.size, note)
    mean = group.sum([float(np.mean([loss.asnumpy() for loss in losses]))])[0] / group.size
    now = time.monotonic()
    img_s = len(losses) * config.data.batch_size * group.size / (now - computing)
    skipped = sum(not flag.asnumpy() for flag in finite)
    return Epoch(mean, rates[first + len(losses) - 1], img_s, now - started, skipped)


def _row(number: int, phase: Phase, epoch: Epoch, top1: Optional[float], top5: Optional[float]) -> dict[str, object]:
    return {
        "epoch": number,
        "phase": phase.number,
        "tokens": phase.tokens,
        "loss": f"{epoch.loss:.6f}",
        "lr": f"{epoch.lr:.6e}",
        "top1": "" if top1 is None else f"{top1:.4f}",
        "top5": "" if top5 is None else f"{top5:.4f}",
        "img_s": f"{epoch.img_s:.2f}",
        "seconds": f"{epoch.seconds:.2f}",
    }


def _report(config: Config, phase: Phase, number: int, epoch: Epoch, top1: Optional[float], progress: Progress) -> None:
    log.info(
        "epoch %d/%d %s: loss %.4f, lr %.2e, %s%.0f img/s, %s left%s",
        number,
        config.train.epochs,
        phase.tokens,
        epoch.loss,
        epoch.lr,
        "" if top1 is None else f"top-1 {top1:.2f}%, ",
        epoch.img_s,
        progress.left(),
        f", {epoch.skipped} steps were not finite" if epoch.skipped else "",
    )


def _announce(
    config: Config, source: Source, state: State, phases: list[Phase], reached: Reached, group: Group
) -> None:
    parameters = sum(parameter.size for parameter in state.network.get_parameters())
    train, val = source.splits["train"], source.splits["val"]
    log.info(
        "%s: %s parameters; %d classes, %d training and %d validation images in %s",
        config.model.name,
        f"{parameters:,}",
        len(source.classes),
        train.images,
        val.images,
        config.data.root,
    )
    log.info(
        "%d process%s of batch %d, together %d; peak learning rate %.3g (%s)",
        group.size, "es" if group.size > 1 else "", config.data.batch_size, config.data.batch_size * group.size,
        peak_lr(config, group.size), _lr_rule(config),
    )  # fmt: skip
    for phase in phases:
        plan = state.network.with_tokens(phase.tokens).plan
        log.info(
            "phase %d, epochs %d-%d: %s, tokens leaving each block %s, %.3f GMACs, ideal gain %.1f%%",
            phase.number, phase.first, phase.last, phase.tokens, plan.tokens_out, plan.macs / 1e9,
            100 * plan.ideal_gain,
        )  # fmt: skip
    log.info("%d training graphs will be compiled", sum(reached.epoch < phase.last for phase in phases))
    if config.train.warmup_dense_epochs and phases[-1].tokens != config.model.tokens:
        log.warning("all %d epochs are dense warm-up: %s is never trained", config.train.epochs, config.model.tokens)
    if reached.epoch:
        log.info("going on after epoch %d", reached.epoch)


def _lr_rule(config: Config) -> str:
    lr, batch = config.optimizer.lr, config.optimizer.lr_batch_size
    return f"{lr:g} for a batch of {batch}, scaled with the batch" if batch else "not scaled with the batch"
