"""The picture of what a run's best network does with the tokens of some validation images."""

import base64
import io
from dataclasses import dataclass
from typing import Optional

from PIL import Image

from src.data.loaders import val_sample
from src.errors import short_message
from src.models import from_config
from src.visuals.images import open_val_images
from src.visuals.report.runs import Run
from src.visuals.sheet import token_sheet
from src.weights import read_checkpoint

IMAGES = 6
LARGE = 400_000  # bytes of PNG, from which on a picture is a JPEG


@dataclass(frozen=True)
class TokenPicture:
    """A run's picture as a data URI with its size in pixels; without `uri`, why there is none.

    Attributes:
        words: What the picture shows, or why there is none.
    """

    run: str
    words: str
    uri: Optional[str] = None
    width: int = 0
    height: int = 0


def draw(run: Run) -> TokenPicture:
    """Draw the tokens of the best checkpoint under the run's schedule."""
    if not run.folder.best.is_file():
        return TokenPicture(run.name, "There is no best checkpoint yet.")
    try:
        dataset = open_val_images(run.here, run.classes)
        images, labels = val_sample(dataset, run.here, IMAGES)
        network = from_config(run.config.model)
        read_checkpoint(run.folder.best).load_into(network)
        data = run.here.data
        title = f"{run.name}, {run.config.model.tokens}"
        sheet = token_sheet(network, images, data.mean, data.std, title, dataset.classes, labels.tolist())
    except Exception as error:  # whatever has become of data and checkpoint since, the rest of the report is of use
        return TokenPicture(run.name, f"The picture cannot be drawn: {' '.join(short_message(error).split())}.")
    names = ", ".join(dataset.classes[label] for label in labels)
    words = f"{len(images)} validation images (of the classes {names}), and the tokens that each drop keeps of them"
    return TokenPicture(run.name, words, _data_uri(sheet), *sheet.size)


def _data_uri(picture: Image.Image) -> str:
    """Encode a picture as PNG, or as JPEG where that is large."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    kind = "png"
    if file.tell() > LARGE:
        kind, file = "jpeg", io.BytesIO()
        picture.convert("RGB").save(file, "JPEG", quality=90, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
