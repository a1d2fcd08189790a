"""The training loop.

It knows a network only as images → logits, with `with_tokens` for another schedule and `draw` for what is random.
"""

import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np
from mindspore import Tensor, nn

from src import runtime
from src.config import Config, peak_lr
from src.data import batches, steps_of_epoch, train_loader, val_loader
from src.distributed import ALONE, Group
from src.errors import FailureError, Interrupted
from src.progress import Progress
from src.sources import Source
from src.stop import STOP
from src.training.board import open_board
from src.training.checkpoint import Reached, restore_state, save_best, save_network, save_state
from src.training.evaluate import Accuracy, evaluate
from src.training.metrics import Metrics
from src.training.optimizer import learning_rates
from src.training.phases import Phase, plan_phases
from src.training.run_folder import RunFolder
from src.training.state import new_state
from src.training.step import TrainStep

STEPS_BETWEEN_NOTES = 10

log = logging.getLogger("skipvit")


@dataclass(frozen=True)
class Epoch:
    """What the training part of one epoch came to.

    Compiling is in `seconds` and not in `img_s`. `skipped` counts the steps whose loss or gradients were not finite.
    `img_s` is None if all steps were done before the run was stopped.
    """

    loss: float
    lr: float
    img_s: Optional[float]
    seconds: float
    skipped: int


class Trainer:
    """One training, from the beginning or from where its last checkpoint left it.

    Args:
        config: The resolved configuration.
        source: The data, with the splits "train" and "val".
        build: Makes the network.
        run: The run folder: a row of metrics and checkpoints are written to it, by the first process.
        group: The processes that train together; every one has a trainer.
    """

    def __init__(
        self, config: Config, source: Source, build: Callable[[], nn.Cell], run: RunFolder, group: Group = ALONE
    ) -> None:
        runtime.set_seeds(config.train.seed)
        self.config, self.source, self.run, self.group = config, source, run, group
        self.steps = steps_of_epoch(source, config, group)
        self.images = config.data.batch_size * group.size  # of a step
        self.rates = learning_rates(config, self.steps, group.size)
        self.state = new_state(config, build, self.rates)
        self.phases = plan_phases(config.model.tokens, config.train.epochs, config.train.warmup_dense_epochs)
        self.reached = Reached()

    def train(self, resume: bool) -> None:
        """Train to the last epoch.

        Args:
            resume: Go on from the run's last checkpoint, where there is one yet.

        Raises:
            Interrupted: A signal asked to stop; all is saved.
            FailureError: A loss is not finite, and `train.on_nan` says stop, or there were too many.
        """
        if resume:
            self.reached = restore_state(self.run, self.state)
        self._announce()
        done = self.reached.epoch * self.steps + len(self.reached.losses)
        total = self.steps * self.config.train.epochs
        self.board = open_board(self.config, self.source, self.run, self.group, self.reached.epoch, done)
        graphs = 0
        with (
            STOP.heed(),
            Progress(total * self.images, "training", "img", done=done * self.images) as self.progress,
        ):
            for phase in self.phases:
                if self.reached.epoch < phase.last:
                    gc.collect()  # a network that is freed while another compiles makes that one compile twice
                    step = self.state.step(self.config, phase.tokens, self.group)
                    self._train_phase(phase, step)
                    graphs += len(step.compile_cache)
                    del step
        best = self.reached.best_top1
        log.info(
            "done: %d training graph%s compiled, best top-1 %.2f%%, in %s",
            graphs,
            "" if graphs == 1 else "s",
            best,
            self.run.best,
        )

    def _train_phase(self, phase: Phase, step: TrainStep) -> None:
        evaluated = self.state.weights_to_use().with_tokens(phase.tokens)
        for number in range(max(phase.first, self.reached.epoch + 1), phase.last + 1):
            epoch = self._train_epoch(step, number)
            accuracy = None
            if number % self.config.train.eval_every == 0 or number == phase.last:
                loader = val_loader(self.source, self.config, self.group)
                accuracy = evaluate(evaluated, loader, self.config.data.batch_size, self.group, self._heed)
            self._finish_epoch(phase, number, epoch, accuracy, evaluated)

    def _train_epoch(self, step: TrainStep, number: int) -> Epoch:
        """The steps of an epoch that are still to be done."""
        runtime.set_seeds(self.config.train.seed, number, self.group.rank)
        classes = step.network.geometry.num_classes
        loader = train_loader(self.source, self.config, classes, number, self.group)
        step.set_train()
        before = len(self.reached.losses)
        pending: list[tuple[Tensor, Tensor]] = []
        started = computing = time.monotonic()
        for index, (images, labels) in enumerate(batches(loader, self.config.runtime.sink), 1):
            if index <= before:
                continue  # done before the run was stopped; the random numbers after it are the same
            inputs = (images, labels, *self._draws(step.network, number, index))
            if not step.compile_cache:
                runtime.compile_ahead(step, *inputs)
                computing = time.monotonic()
            pending.append(step(*inputs))
            noted = index % STEPS_BETWEEN_NOTES == 1 or index == self.steps
            every = self.config.run.save_every_steps
            saves = every is not None and index % every == 0 and index < self.steps
            stops = STOP.asked is not None  # asked once: a signal may come at any moment
            note = ""
            if noted or saves or stops:
                self._account(number, pending)
                pending = []
                self.board.note_step((number - 1) * self.steps + index, self.reached.losses[-1])
                note = f"epoch {number} loss {self.reached.losses[-1]:.4f} lr {self._rate(number, index):.2e}"
            self.progress.advance(self.images, note)
            if stops:
                self._heed()
            if saves:
                self._save()
        now = time.monotonic()
        losses = np.float32(self.reached.losses)
        mean = self.group.sum([float(np.mean(losses[np.isfinite(losses)]))])[0] / self.group.size
        img_s = (self.steps - before) * self.images / (now - computing) if before < self.steps else None
        return Epoch(mean, self._rate(number, self.steps), img_s, now - started, self.reached.skipped)

    def _draws(self, network: nn.Cell, number: int, index: int) -> tuple[Tensor, ...]:
        """What is random in the network, for a step; nothing if nothing is."""
        seed = (self.config.train.seed, number, index, self.group.rank)
        return network.draw(self.config.data.batch_size, *seed)

    def _account(self, number: int, pending: list[tuple[Tensor, Tensor]]) -> None:
        """Take the results of steps into what was reached; refuse losses that are not finite."""
        losses = [float(loss.asnumpy()) for loss, _ in pending]
        finite = [bool(flag.asnumpy()) for _, flag in pending]
        first = len(self.reached.losses) + 1
        skipped = self.reached.skipped + finite.count(False)
        self.reached = replace(self.reached, losses=(*self.reached.losses, *losses), skipped=skipped)
        if self.config.train.loss_scale_type == "dynamic":  # gradients overflow now and then, losses must not
            finite = np.isfinite(losses).tolist()
            skipped = int(np.sum(~np.isfinite(self.reached.losses)))
        limit = self.config.train.max_skips if self.config.train.on_nan == "skip" else 0
        if False in finite and skipped > limit:
            step = first + finite.index(False)
            what = f"the loss is {self.reached.losses[step - 1]:g}"
            what += ", or its gradients are not finite" if np.isfinite(self.reached.losses[step - 1]) else ""
            what += f"; {limit} such steps were skipped" if limit else ""
            raise FailureError(
                f"epoch {number}, step {step}: {what}; learning rate"
                f" {self._rate(number, step):.3g}, loss scale {float(self.state.scaler.scale_value.asnumpy()):g};"
                f" the last good checkpoint is {self.run.last if self.run.last.exists() else 'none yet'};"
                " start another run with a lower optimizer.lr, or a lower train.clip_norm"
            )

    def _heed(self) -> None:
        """Stop here, with all saved, if a signal has asked for it."""
        if STOP.asked is None:
            return
        self._save()
        raise Interrupted(STOP.asked, f"{STOP.asked.name}: saved; go on with python train.py --resume {self.run.path}")

    def _save(self) -> None:
        if self.group.leads:
            save_state(self.run, self.config, self.state, self.reached)

    def _finish_epoch(
        self, phase: Phase, number: int, epoch: Epoch, accuracy: Optional[Accuracy], evaluated: nn.Cell
    ) -> None:
        top1, top5 = (accuracy.top1, accuracy.top5) if accuracy else (None, None)
        best = (self.reached.best_phase, self.reached.best_top1)
        improved = top1 is not None and (phase.number, top1) > best
        self.reached = Reached(number, *((phase.number, top1) if improved else best))
        if self.group.leads:
            if improved:
                save_best(self.run, self.config, evaluated)
            every = self.config.run.save_every_epochs
            if every is not None and number % every == 0:
                save_network(self.run.epoch(number), self.config, evaluated)
            row = Metrics(
                number, phase.number, phase.tokens, loss=epoch.loss, lr=epoch.lr, top1=top1, top5=top5,
                img_s=epoch.img_s, seconds=epoch.seconds,
            )  # fmt: skip
            row = self.run.write_epoch(row)
            self.board.note_epoch(phase, row, evaluated)
            self._save()  # last: a run that is killed before does the epoch again, to the same result
        _report(self.config, phase, number, epoch, top1, self.progress)
        if self.config.train.loss_scale_type == "dynamic" and float(self.state.scaler.scale_value.asnumpy()) <= 1:
            log.warning("the loss scale has fallen to 1: gradients overflow at any scale")

    def _announce(self) -> None:
        parameters = sum(parameter.size for parameter in self.state.network.get_parameters())
        train, val = self.source.splits["train"], self.source.splits["val"]
        log.info(
            "%s: %s parameters; %d classes, %d training and %d validation images in %s",
            self.config.model.name,
            f"{parameters:,}",
            len(self.source.classes),
            train.images,
            val.images,
            self.config.data.root,
        )
        log.info(
            "%d process%s of batch %d, together %d; peak learning rate %.3g (%s)",
            self.group.size, "es" if self.group.size > 1 else "", self.config.data.batch_size, self.images,
            peak_lr(self.config, self.group.size), _lr_rule(self.config),
        )  # fmt: skip
        for phase in self.phases:
            plan = self.state.network.with_tokens(phase.tokens).plan
            log.info(
                "phase %d, epochs %d-%d: %s, tokens leaving each block %s, %.3f GMACs, ideal gain %.1f%%",
                phase.number, phase.first, phase.last, phase.tokens, plan.tokens_out, plan.macs / 1e9,
                100 * plan.ideal_gain,
            )  # fmt: skip
            if plan.schedule.stages and not any(plan.kept):
                log.warning("%s drops no token of this model: look at model.align_tokens and image_size", phase.tokens)
        graphs = sum(self.reached.epoch < phase.last for phase in self.phases)
        log.info("%d training graph%s will be compiled", graphs, "" if graphs == 1 else "s")
        if self.config.train.warmup_dense_epochs and self.phases[-1].tokens != self.config.model.tokens:
            log.warning(
                "all %d epochs are dense warm-up: %s is never trained",
                self.config.train.epochs,
                self.config.model.tokens,
            )
        if self.reached.epoch >= self.config.train.epochs:
            log.info("nothing to do: %d of %d epochs are done", self.reached.epoch, self.config.train.epochs)
        elif self.reached != Reached():
            log.info("going on after epoch %d, step %d of the next", self.reached.epoch, len(self.reached.losses))

    def _rate(self, number: int, index: int) -> float:
        """The learning rate of a step, counted from 1, of an epoch."""
        return self.rates[(number - 1) * self.steps + index - 1]


def _report(config: Config, phase: Phase, number: int, epoch: Epoch, top1: Optional[float], progress: Progress) -> None:
    log.info(
        "epoch %d/%d %s: loss %.4f, lr %.2e, %s%s%s left%s",
        number,
        config.train.epochs,
        phase.tokens,
        epoch.loss,
        epoch.lr,
        "" if top1 is None else f"top-1 {top1:.2f}%, ",
        "" if epoch.img_s is None else f"{epoch.img_s:.0f} img/s, ",
        progress.left(),
        f", {epoch.skipped} steps were not finite" if epoch.skipped else "",
    )


def _lr_rule(config: Config) -> str:
    lr, batch = config.optimizer.lr, config.optimizer.lr_batch_size
    return f"{lr:g} for a batch of {batch}, scaled with the batch" if batch else "not scaled with the batch"
