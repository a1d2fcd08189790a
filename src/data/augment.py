"""One training image: decoded, cropped, flipped and augmented by random numbers of its own.

MindSpore's operators and MindCV's policies draw from global states (of MindSpore's C++, NumPy and `random`). All three
are seeded before every transform of every image, from numbers that name the image, so the result depends on nothing
that came before, and not on the thread or process that makes it.
"""

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Optional, Union

import mindspore.dataset as ds
import numpy as np
from PIL import Image

from src.config import Config
from src.data.crops import CropFinder
from src.data.transforms import train_transforms
from src.errors import RunError, short_message

WAY_OUT = (
    "; mend it (an empty file may stand for a lost one), or resume with data.on_bad_image=skip, which trains another in"
    " its place"
)
_SAID = re.compile(r"\[ERROR\] (.+)")
Item = Union[str, np.ndarray]  # an image file, or pixels uint8 [H, W, 3]
Key = tuple[int, ...]  # numbers that name an image of a run: seed, epoch, image, copy


class Augmenter:
    """Make augmented images of a configuration: uint8 [height, width, 3], not yet normalised."""

    def __init__(self, config: Config) -> None:
        self.transforms = train_transforms(config.data, config.model.image_size)
        self.find_crop = CropFinder(self.transforms, config.data)

    def __call__(self, item: Item, key: Key) -> np.ndarray:
        """Make one image.

        Raises:
            RunError: It cannot be read, or an augmentation fails; the message names file and cause.
        """
        name = item if isinstance(item, str) else f"number {key[-2]}"
        try:
            image = np.fromfile(item, np.uint8) if isinstance(item, str) else item
        except OSError as error:
            raise RunError(f"the data cannot be read: image {name}: {error.strerror}{WAY_OUT}") from error
        try:
            for transform, seed in zip(self.transforms, self._seeds(key)):
                ds.config.set_seed(seed)  # of all three
                image = transform(image)
        except Exception as error:  # whatever MindSpore, MindCV and what they call raise
            if transform is self.transforms[0] and isinstance(item, str):
                raise RunError(f"the data cannot be read: image {name}: {reason(error)}{WAY_OUT}") from error
            raise RunError(f"the data cannot be augmented: image {name}: {reason(error)}") from error
        return image if image.dtype == np.uint8 else np.clip(np.rint(image), 0, 255).astype(np.uint8)

    def crop(self, item: Item, key: Key) -> np.ndarray:
        """Return where the image of the same arguments was cropped, and whether it was flipped: float64 [CROP].

        Raises:
            RunError: It cannot be read.
        """
        if not isinstance(item, str):
            return self.find_crop(item.shape[0], item.shape[1], self._seeds(key))
        try:
            with Image.open(item) as image:  # reads no pixels
                width, height = image.size
        except OSError as error:
            raise RunError(f"the data cannot be read: image {item}: {short_message(error)}{WAY_OUT}") from error
        return self.find_crop(height, width, self._seeds(key))

    def fill(
        self, images: np.ndarray, items: Sequence[Item], keys: Sequence[Key], crops: Optional[np.ndarray] = None
    ) -> None:
        """Make several images, and put them into uint8 [N, height, width, 3]; their crops into float64 [N, CROP]."""
        for number, (item, key) in enumerate(zip(items, keys)):
            images[number] = self(item, key)
            if crops is not None:
                crops[number] = self.crop(item, key)

    def _seeds(self, key: Key) -> list[int]:
        """Return a seed for each transform."""
        return np.random.SeedSequence(key).generate_state(len(self.transforms)).tolist()


@contextmanager
def restored_random_state() -> Iterator[None]:
    """Leave the global states of random numbers as they were."""
    before = ds.config.get_seed(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        ds.config.set_seed(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])


def reason(error: Exception) -> str:
    """Return what MindSpore's data pipeline says, without its account of where."""
    said = _SAID.search(str(error))
    message = said[1] if said else short_message(error)
    return message if isinstance(error, (RuntimeError, OSError)) else f"{type(error).__name__}: {message}"
