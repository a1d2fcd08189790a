"""Images of many requests, run together: a bounded queue, and one thread that takes batches from it."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np


class Full(Exception):  # noqa: N818
    """There is no room for more images."""


class Batcher:
    """Ask a function about images, several at once where several wait.

    Make one within a running event loop, and run `work` there.

    Attributes:
        run: Of a batch of images; returns an answer for each.
        size: Images of a batch at most.
        wait: Seconds that a batch waits for more images where it is not full.
        room: Images that may be there at once: being prepared, waiting, running.
        held: Images that are there.
    """

    def __init__(self, run: Callable[[Sequence[np.ndarray]], Sequence[Any]], size: int, wait: float, room: int) -> None:
        self.run, self.size, self.wait, self.room = run, size, wait, room
        self.held = 0
        self.queue: asyncio.Queue[tuple[np.ndarray, asyncio.Future]] = asyncio.Queue()

    @contextmanager
    def room_for(self, images: int) -> Iterator[None]:
        """Hold the room for images of which `ask` will be asked.

        Raises:
            Full: There is none.
        """
        if self.held + images > self.room:
            raise Full
        self.held += images
        try:
            yield
        finally:
            self.held -= images

    async def ask(self, image: np.ndarray) -> Any:
        """Return the answer for an image, whatever batch it came into."""
        answer = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((image, answer))
        return await answer

    async def work(self) -> None:
        """Run batches, until cancelled. An error is that of the images of its batch alone."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "inference") as thread:
            while True:
                batch = await self._next_batch()
                try:
                    found = await loop.run_in_executor(thread, self.run, [image for image, _ in batch])
                except Exception as error:
                    found = [error] * len(batch)
                for (_, answer), result in zip(batch, found):
                    if answer.cancelled():  # nobody waits for it any more
                        continue
                    if isinstance(result, Exception):
                        answer.set_exception(result)
                    else:
                        answer.set_result(result)

    async def _next_batch(self) -> list[tuple[np.ndarray, asyncio.Future]]:
        batch = [await self.queue.get()]
        if self.queue.qsize() < self.size - 1:
            await asyncio.sleep(self.wait)
        while len(batch) < self.size and not self.queue.empty():
            batch.append(self.queue.get_nowait())
        return batch
