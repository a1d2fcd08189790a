"""timm's training pipeline with DeiT's recipe: Pillow, RandAugment, random erasing, mixup, and PyTorch's DataLoader."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class PipelineSettings:
    """What both pipelines are to do.

    Attributes:
        folder: Class folders of images.
        images: How many of them to load in a run.
        workers: The numbers of workers to measure; 1 stands for none beside this process.
        auto_augment: RandAugment's settings as timm writes them.
    """

    folder: str
    images: int
    workers: tuple[int, ...]
    batch_size: int
    num_classes: int
    image_size: int
    interpolation: str
    auto_augment: str
    hflip: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    random_erasing: float
    random_erasing_mode: str
    mixup: float
    cutmix: float


def contestant(workers: int) -> str:
    """Return the name of timm's pipeline with so many workers."""
    return f"timm, {in_words(workers)}"


def in_words(workers: int) -> str:
    """Return a number of workers in words."""
    return f"{workers} worker{'' if workers == 1 else 's'}"


def timm_pipeline(settings: PipelineSettings) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """Return a pass over the images for each number of workers, which returns this process's seconds of CPU time."""
    import PIL
    import timm
    import torch
    from timm.data import ImageDataset, Mixup, create_transform
    from torch.utils.data import DataLoader, Subset

    torch.set_num_threads(1)
    transform = create_transform(
        settings.image_size, is_training=True, interpolation=settings.interpolation, color_jitter=None,
        auto_augment=settings.auto_augment or None, hflip=settings.hflip, scale=settings.scale, ratio=settings.ratio,
        re_prob=settings.random_erasing, re_mode=settings.random_erasing_mode,
    )  # fmt: skip
    images = Subset(ImageDataset(settings.folder, transform=transform), range(settings.images))
    mix = None
    if settings.mixup or settings.cutmix:
        mix = Mixup(settings.mixup, settings.cutmix, label_smoothing=0.0, num_classes=settings.num_classes)

    def load(loader: DataLoader) -> float:
        started = time.process_time()
        for batch, labels in loader:
            if mix:
                mix(batch, labels)
        return time.process_time() - started

    runs: dict[str, Callable[[], object]] = {}
    for workers in settings.workers:
        processes = workers if workers > 1 else 0
        loader = DataLoader(
            images, settings.batch_size, shuffle=True, num_workers=processes, drop_last=True,
            persistent_workers=processes > 0,
        )  # fmt: skip
        runs[contestant(workers)] = partial(load, loader)
    return runs, {"timm": timm.__version__, "torch": torch.__version__, "pillow": PIL.__version__}
