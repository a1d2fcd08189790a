"""The training loop.

It knows a network only as (images, *random inputs) → logits, with `with_tokens` for another schedule and image size and
`sample` for its random inputs.
"""

import gc
import logging
import shlex
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Optional, Union

import numpy as np
from mindspore import Tensor, nn

from src.config import Config, side_text
from src.data.datasets import Dataset
from src.data.loaders import train_batches, val_loader
from src.data.training import TrainingData, steps_of_epoch
from src.errors import Interrupted, RunError
from src.progress import Progress
from src.runs import Metrics, RunFolder
from src.runtime import device
from src.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from src.schedules import Phase, plan_phases
from src.schedules.phases import config_of, evaluated_tokens
from src.training.accumulate import Accumulation
from src.training.callbacks import Callback
from src.training.checkpoint import TrainingProgress, restore_state, save_best, save_state, save_weights
from src.training.evaluate import Accuracy, evaluate
from src.training.logs import log_epoch, log_setup
from src.training.optimizer import learning_rates
from src.training.state import create_train_state, make_train_step
from src.training.step import TrainStep

Step = Union[TrainStep, Accumulation]
STEPS_BETWEEN_NOTES = 10  # an Ascend is asked no more often for what it has computed

log = logging.getLogger("skipvit")


@dataclass(frozen=True)
class EpochResult:
    """The results of an epoch's training.

    Compiling is in `seconds` and not in `img_s`. `skipped` counts the steps whose loss or gradients were not finite.
    `img_s` is None if all steps were done before a resume. `waiting` is the share of the time, without compiling, in
    which the device had nothing to do because the next images were not ready; unknown (0) in sink mode.
    """

    loss: float
    lr: float
    img_s: Optional[float]
    waiting: float
    seconds: float
    skipped: int


class Trainer:
    """Train from the beginning, or from the last checkpoint.

    Args:
        config: The resolved configuration.
        dataset: The data, with the splits "train" and "val".
        build: Makes the network.
        run: The run folder, to which the first process writes metrics and checkpoints; None in the other processes of
            a new run.
        group: The processes that train together; every one has a trainer.
        callbacks: Told of steps and epochs.
        should_stop: Returns the signal that asks this process to stop, if there is one. A group stops when any of its
            processes is asked to.
        asks: As of `create_train_state`.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        build: Callable[[], nn.Cell],
        run: Optional[RunFolder],
        group: ProcessGroup = SINGLE_PROCESS,
        callbacks: Sequence[Callback] = (),
        should_stop: Callable[[], Optional[signal.Signals]] = lambda: None,
        asks: Optional[Callable[[nn.Cell], nn.Cell]] = None,
    ) -> None:
        device.set_seeds(config.train.seed)
        self.config, self.dataset, self.run, self.group = config, dataset, run, group
        self.callbacks, self.should_stop = callbacks, should_stop
        self.steps = steps_of_epoch(dataset, config, group)
        self.batches = config.train.accumulate  # of a step
        self.images = config.data.batch_size * self.batches * group.size  # of a step
        self.rates = learning_rates(config, self.steps, group.size)
        self.state = create_train_state(config, build, self.rates, asks)
        self.phases = plan_phases(config)
        self.graphs = 0  # of training, compiled
        self.trains: Optional[tuple[Step, Phase]] = None  # the last step, and what it was made for
        self.evaluates: Optional[tuple[nn.Cell, str]] = None
        self.progress = TrainingProgress()
        self.agrees_each_step = group.size == 1 or config.runtime.device_target == "CPU"

    def train(self, resume: bool) -> None:
        """Train to the last epoch.

        Args:
            resume: Continue from the run's last checkpoint, where there is one yet.

        Raises:
            Interrupted: A signal asked to stop; all is saved.
            RunError: A loss is not finite and `train.on_nan` says stop, or there were too many.
        """
        if resume and self.run is not None:
            self.progress = restore_state(self.run, self.state, self.steps)
        log_setup(self.config, self.dataset, self.group, self.progress)
        done = self.progress.epoch * self.steps + len(self.progress.losses)
        total = self.steps * self.config.train.epochs
        for callback in self.callbacks:
            callback.on_start(self.progress.epoch, done)
        left = [phase for phase in self.phases if self.progress.epoch < phase.last]
        with Progress(total * self.images, "training", "img", done=done * self.images) as self.bar:
            for _, phases in groupby(left, key=lambda phase: phase.images):
                self._train_alike(list(phases))
        where = f", in {self.run.best}" if self.run else ""
        plural = "" if self.graphs == 1 else "s"
        best = self.progress.best_top1
        log.info("done: %d training graph%s compiled, best top-1 %.2f%%%s", self.graphs, plural, best, where)

    def _train_alike(self, phases: Sequence[Phase]) -> None:
        """Train phases whose images are made alike."""
        classes = self.state.network.geometry.num_classes
        with TrainingData(self.dataset, config_of(self.config, phases[0]), classes, self.group) as self.data:
            for phase in phases:
                self._train_phase(phase)

    def _graphs_of(self, phase: Phase) -> tuple[Step, nn.Cell]:
        """Return a phase's step, and the network to evaluate: those of the phase before, where they are the same."""
        tokens = evaluated_tokens(self.config, phase)
        if self.trains and self.trains[1].graph != phase.graph:
            self.trains = None
        if self.evaluates and self.evaluates[1] != tokens:
            self.evaluates = None
        gc.collect()  # a network that is freed while another compiles makes that one compile twice
        if self.trains is None:
            step = make_train_step(self.state, self.config, phase.tokens, self.group, phase.image_size)
            self.trains = step, phase
        if self.evaluates is None:
            self.evaluates = self.state.eval_network.with_tokens(tokens), tokens
        return self.trains[0], self.evaluates[0]

    def _train_phase(self, phase: Phase) -> None:
        step, evaluated = self._graphs_of(phase)
        compiled = len(step.compile_cache)
        for number in range(max(phase.first, self.progress.epoch + 1), phase.last + 1):
            epoch = self._train_epoch(step, number)
            accuracy = None
            if number % self.config.train.eval_every == 0 or number == phase.last:
                loader = val_loader(self.dataset, self.config, self.group)
                batch_size = self.config.data.batch_size
                accuracy = evaluate(evaluated, loader, batch_size, self.group, lambda: self._stop_at(self._signal()))
            self._finish_epoch(phase, number, epoch, accuracy, evaluated)
        self.graphs += len(step.compile_cache) - compiled

    def _train_epoch(self, step: Step, number: int) -> EpochResult:
        """Train the steps of an epoch that are still to be done."""
        device.set_seeds(self.config.train.seed, number, self.group.rank)
        step.set_train()
        before = len(self.progress.losses)
        pending: list[tuple[Tensor, Tensor]] = []
        sink = self.config.runtime.sink
        epoch = self.data.epoch(number, before * self.batches, lambda: None if sink else _finish_steps(pending))
        started = computing = time.monotonic()
        with closing(train_batches(epoch, sink)) as batches:
            for batch, given in enumerate(batches, before * self.batches + 1):
                inputs = (*given, *self._sample(step, number, batch))
                if not step.compile_cache:
                    device.compile_ahead(step, *inputs)
                    computing, epoch.waited = time.monotonic(), 0.0
                result = step(*inputs)
                if result is None:  # more batches make the step's update
                    continue
                pending.append(result)
                index = batch // self.batches
                saves = self._saves_at(index)
                collects = index % STEPS_BETWEEN_NOTES == 1 or index == self.steps or saves
                stop = self._signal() if collects or self.agrees_each_step else None
                note = ""
                if collects or stop:
                    note = self._collect_losses(number, pending)
                    pending.clear()
                self.bar.advance(self.images, note)
                self._stop_at(stop)
                if saves:
                    self._save()
        now = time.monotonic()
        losses = np.array(self.progress.losses, np.float32)
        mean = float(np.mean(losses[np.isfinite(losses)]))
        img_s = (self.steps - before) * self.images / (now - computing) if before < self.steps else None
        waiting = 0.0 if sink else epoch.waited / (now - computing)
        return EpochResult(mean, self._rate(number, self.steps), img_s, waiting, now - started, self.progress.skipped)

    def _saves_at(self, index: int) -> bool:
        """Tell whether a checkpoint within the epoch is due after a step."""
        every = self.config.run.save_every_steps
        return every is not None and index % every == 0 and index < self.steps

    def _sample(self, step: Step, number: int, index: int) -> tuple[object, ...]:
        """Draw a step's random inputs for a batch."""
        seed = (self.config.train.seed, number, index, self.group.rank)
        return step.sample(self.config.data.batch_size, *seed)

    def _collect_losses(self, number: int, pending: Sequence[tuple[Tensor, Tensor]]) -> str:
        """Add the results of steps to the progress, refuse losses that are not finite, and return a note of the last.

        A group's processes have the same progress: the mean of their losses.

        Raises:
            RunError: There were too many that are not finite.
        """
        losses = [loss / self.group.size for loss in self.group.sum([float(loss.asnumpy()) for loss, _ in pending])]
        finite = [bool(flag.asnumpy()) and bool(np.isfinite(loss)) for (_, flag), loss in zip(pending, losses)]
        first = len(self.progress.losses) + 1
        skipped = self.progress.skipped + finite.count(False)
        self.progress = replace(self.progress, losses=(*self.progress.losses, *losses), skipped=skipped)
        if self.config.train.loss_scale_type == "dynamic":  # gradients overflow now and then, losses must not
            finite = np.isfinite(losses).tolist()
            skipped = int(np.sum(~np.isfinite(self.progress.losses)))
        limit = self.config.train.max_skips if self.config.train.on_nan == "skip" else 0
        if False in finite and skipped > limit:
            raise self._not_finite(number, first + finite.index(False), limit)
        done = len(self.progress.losses)
        for callback in self.callbacks:
            callback.on_step((number - 1) * self.steps + done, losses[-1])
        return f"epoch {number} loss {losses[-1]:.4f} lr {self._rate(number, done):.2e}"

    def _not_finite(self, number: int, step: int, limit: int) -> RunError:
        """Return the error of a loss or of gradients that are not finite."""
        loss = self.progress.losses[step - 1]
        what = f"the loss is {loss:g}"
        what += ", or its gradients are not finite" if np.isfinite(loss) else ""
        what += f"; {limit} such steps were skipped" if limit else ""
        last = self.run.last if self.run is not None and self.run.last.exists() else "none yet"
        return RunError(
            f"epoch {number}, step {step}: {what}; learning rate {self._rate(number, step):.3g}, loss scale"
            f" {float(self.state.scaler.scale_value.asnumpy()):g}; the last good checkpoint is {last};"
            " start another run with a lower optimizer.lr, or a lower train.clip_norm"
        )

    def _signal(self) -> Optional[signal.Signals]:
        """Return the signal that asks any process of the group to stop; all of them ask at the same step."""
        return self.group.any_signal(self.should_stop())

    def _stop_at(self, requested: Optional[signal.Signals]) -> None:
        """Save and stop here if a signal asks for it.

        Raises:
            Interrupted: It does.
        """
        if requested is None:
            return
        self._save()
        self.group.barrier()  # msrun kills the others as soon as one has ended
        raise Interrupted(requested, f"{requested.name}: {self._how_to_resume()}" if self.group.is_main else "")

    def _how_to_resume(self) -> str:
        if self.run is None:
            return "stopped"
        resume = f"--resume {shlex.quote(str(self.run.path))}"
        if self.group.size == 1:
            return f"saved; resume with python train.py {resume}"
        return f"saved; resume with the same msrun of {self.group.size} processes: train.py --distribute {resume}"

    def _save(self) -> None:
        if self.run is not None and self.group.is_main:
            save_state(self.run, self.config, self.state, self.progress)

    def _finish_epoch(
        self, phase: Phase, number: int, epoch: EpochResult, accuracy: Optional[Accuracy], evaluated: nn.Cell
    ) -> None:
        top1, top5 = (accuracy.top1, accuracy.top5) if accuracy else (None, None)
        best_phase, best_top1 = self.progress.best_phase, self.progress.best_top1
        improved = top1 is not None and (phase.number, top1) > (best_phase, best_top1)
        if top1 is not None and improved:
            best_phase, best_top1 = phase.number, top1
        self.progress = TrainingProgress(number, best_phase, best_top1)
        row = Metrics(
            number, phase.number, phase.tokens, loss=epoch.loss, lr=epoch.lr, top1=top1, top5=top5, img_s=epoch.img_s,
            seconds=epoch.seconds, image_size=side_text(phase.image_size),
        )  # fmt: skip
        if self.run is not None and self.group.is_main:
            if improved:
                save_best(self.run, self.config, evaluated, number)
            every = self.config.run.save_every_epochs
            if every is not None and number % every == 0:
                save_weights(self.run.epoch(number), self.config, evaluated, number)
            written = self.run.write_epoch(row)
            for callback in self.callbacks:
                callback.on_epoch(phase, written, evaluated)
            self._save()  # last: a run that is killed before repeats the epoch, with the same result
        log_epoch(row, self.config.train.epochs, epoch.skipped, epoch.waiting, self.bar.left())
        if self.config.train.loss_scale_type == "dynamic" and float(self.state.scaler.scale_value.asnumpy()) <= 1:
            log.warning("the loss scale has fallen to 1: gradients overflow at any scale")

    def _rate(self, number: int, index: int) -> float:
        """Return the learning rate of a step, counted from 1, of an epoch."""
        return self.rates[(number - 1) * self.steps + index - 1]


def _finish_steps(pending: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Wait until the device has done its steps, so that waiting for data counts from there."""
    if pending:
        pending[-1][0].asnumpy()
