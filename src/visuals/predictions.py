"""A sheet of what a network in a file predicts, and of the tokens that each drop keeps. Never imports MindSpore."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.errors import UserError
from src.schedules import Plan
from src.schedules.trace import Trace
from src.visuals.pictures import save_picture
from src.visuals.sheet import contact_sheet
from src.visuals.tokens import Column, all_drops

MOST_IMAGES = 100


def check_sheet(path: Path, images: int) -> None:
    """Refuse a sheet that cannot be written, or would be too large.

    Raises:
        UserError: It is so.
    """
    if path.suffix.lower() != ".png" or not path.parent.is_dir():
        raise UserError(f"--save {path} must be a file that ends in .png, in a folder that exists")
    if images > MOST_IMAGES:
        raise UserError(f"--save {path}: a sheet shows at most {MOST_IMAGES} images, not {images}; name fewer")


def draw_predictions(
    path: Path, titles: Sequence[str], pixels: np.ndarray, trace: Trace, plan: Plan, grid: tuple[int, int],
    classes: Sequence[str],
) -> None:  # fmt: skip
    """Draw a row for each image: the image, what is predicted, and the patches that each drop keeps.

    Args:
        pixels: The images, uint8 [B, H, W, 3].
        trace: Its attention is not looked at.

    Raises:
        UserError: The kept patches are not known, or the picture cannot be written.
    """
    if any(plan.kept) and not trace.kept:
        raise UserError(f"--save {path}: the file does not give the kept tokens; export it as ONNX with --kept")
    column = Column(str(plan.schedule), trace, plan, grid, classes)
    save_picture("--save", path, contact_sheet(pixels, [column], titles, stages=all_drops))
