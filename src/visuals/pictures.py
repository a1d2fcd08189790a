"""Write pictures."""

from pathlib import Path
from typing import Any

from PIL import Image

from src.errors import UserError, short_message
from src.files import written_whole

MILLISECONDS_A_FRAME, MILLISECONDS_AT_THE_END = 600, 2500


def save_picture(option: str, path: Path, *pictures: Image.Image) -> None:
    """Write a picture, or several as a GIF, to the file that an option names.

    Raises:
        UserError: It cannot be written.
    """
    film: dict[str, Any] = {}
    if path.suffix == ".gif":
        times = [MILLISECONDS_A_FRAME] * (len(pictures) - 1) + [MILLISECONDS_AT_THE_END]
        pictures = tuple(picture.quantize(method=Image.Quantize.MAXCOVERAGE) for picture in pictures)  # 256 colours
        film = {"save_all": True, "append_images": pictures[1:], "duration": times, "loop": 0}
    try:
        with written_whole(path) as partial:
            pictures[0].save(partial, format=path.suffix[1:], **film)
    except OSError as error:
        raise UserError(f"{option} {path} cannot be written: {error.strerror or short_message(error)}") from error
    print(f"wrote {path}, {pictures[0].width}x{pictures[0].height}" + (f", {len(pictures)} frames" if film else ""))
