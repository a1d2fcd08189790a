"""Augmentation ahead of its use: by processes, or by a thread of this one.

Processes are forked from multiprocessing's fork server, which has imported MindSpore and started no thread, and never
from this one, whose MindSpore has threads that a fork would lose. A process reads tasks from a socket of which only
this process holds the other end: it ends when the socket closes, so also when this process is killed. SIGINT and
SIGTERM are blocked in it, for this process decides what to do about them.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Optional, Protocol

import numpy as np

from src.config import Config
from src.data.augment import Augmenter, Item, Key, restored_random_state
from src.data.crops import CROP
from src.errors import RunError

SIGNALS = {signal.SIGINT, signal.SIGTERM}
SECONDS_TO_END = 5  # for a process whose socket has closed

_start = threading.Lock()  # the fork server is one, and starting it changes the thread's signal mask


class Worker(Protocol):
    """What makes augmented images, some at a time."""

    def start(self) -> None:
        """Get ready."""

    def fill(
        self, images: np.ndarray, items: Sequence[Item], keys: Sequence[Key], crops: Optional[np.ndarray] = None
    ) -> None:
        """Put images of these items into uint8 [N, height, width, 3]; their crops into float64 [N, CROP]."""

    def close(self) -> None:
        """Let go of everything."""


class Here:
    """Makes images in the calling thread."""

    def __init__(self, config: Config) -> None:
        self.augmenter = Augmenter(config)

    def start(self) -> None:
        pass

    def fill(
        self, images: np.ndarray, items: Sequence[Item], keys: Sequence[Key], crops: Optional[np.ndarray] = None
    ) -> None:
        with restored_random_state():
            self.augmenter.fill(images, items, keys, crops)

    def close(self) -> None:
        pass


class Process:
    """Makes images in a process of its own."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.process: Optional[multiprocessing.process.BaseProcess] = None
        self.connection: Optional[Connection] = None

    def start(self) -> None:
        """Start the process, unless it runs."""
        context = multiprocessing.get_context("forkserver")
        with _start:
            if self.process is not None:
                return
            context.set_forkserver_preload(["mindspore.dataset.vision", "mindcv.data"])
            before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                resource_tracker.ensure_running()  # unblocks the signals
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
                self.connection, other = context.Pipe()
                with closing(other):
                    self.process = context.Process(target=serve, args=(other, self.config), daemon=True)
                    self.process.start()
                util.Finalize(self, self.connection.close, exitpriority=10)  # before multiprocessing waits for it
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def fill(
        self, images: np.ndarray, items: Sequence[Item], keys: Sequence[Key], crops: Optional[np.ndarray] = None
    ) -> None:
        self.start()
        assert self.connection is not None
        try:
            self.connection.send((images.shape, items, keys, crops is not None))
            problem = self.connection.recv()
            if problem is None:
                for array in _present(images, crops):
                    _read_into(self.connection.fileno(), _bytes(array))
        except (EOFError, OSError) as error:
            raise RunError(self._end()) from error
        if problem is not None:
            raise RunError(problem)

    def close(self) -> None:
        if self.connection is None or self.process is None:
            return
        self.connection.close()
        self.process.join(SECONDS_TO_END)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _end(self) -> str:
        """Return how the process ended."""
        assert self.process is not None
        self.process.join(SECONDS_TO_END)
        code = self.process.exitcode
        return (
            f"a process that augments images ended with exit code {code}"
            + (" (killed: is there enough memory?)" if code == -signal.SIGKILL else "")
            + "; resume the run, with fewer data.workers if it happens again"
        )


def serve(connection: Connection, config: Config) -> None:
    """Do tasks until the other end closes; answer each with None, the pixels and the crops, or with what is wrong."""
    augmenter = Augmenter(config)
    try:
        while True:
            shape, items, keys, wants_crops = connection.recv()
            images = np.empty(shape, np.uint8)
            crops = np.empty((len(items), CROP)) if wants_crops else None
            try:
                augmenter.fill(images, items, keys, crops)
            except RunError as error:
                connection.send(str(error))
                continue
            connection.send(None)
            for array in _present(images, crops):
                rest = _bytes(array)
                while rest:
                    rest = rest[os.write(connection.fileno(), rest) :]
    except (EOFError, OSError):
        return  # nobody is there any more


def _present(images: np.ndarray, crops: Optional[np.ndarray]) -> tuple[np.ndarray, ...]:
    return (images,) if crops is None else (images, crops)


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _read_into(file: int, buffer: memoryview) -> None:
    while buffer:
        count = os.readv(file, [buffer])
        if not count:
            raise EOFError
        buffer = buffer[count:]


class Workers:
    """As many workers as `data.workers` says, and a thread for each that waits for it. Close them."""

    def __init__(self, config: Config) -> None:
        number = config.data.workers
        self.number = number
        self.all: list[Worker] = [Process(config) for _ in range(number)] if number > 1 else [Here(config)]
        self.idle: SimpleQueue[Worker] = SimpleQueue()
        for worker in self.all:
            self.idle.put(worker)
        self.threads = ThreadPoolExecutor(number, "images")
        for worker in self.all:
            self.threads.submit(worker.start)

    def fill(
        self, images: np.ndarray, items: Sequence[Item], keys: Sequence[Key], crops: Optional[np.ndarray] = None
    ) -> "Future[None]":
        """Have the next idle worker put images into uint8 [N, height, width, 3], and crops into float64 [N, CROP]."""
        return self.threads.submit(self._fill, images, items, keys, crops)

    def close(self) -> None:
        """Drop what was not begun, and end every process."""
        self.threads.shutdown(wait=True, cancel_futures=True)
        for worker in self.all:
            worker.close()

    def _fill(
        self, images: np.ndarray, items: Sequence[Item], keys: Sequence[Key], crops: Optional[np.ndarray]
    ) -> None:
        worker = self.idle.get()
        try:
            worker.fill(images, items, keys, crops)
        finally:
            self.idle.put(worker)
