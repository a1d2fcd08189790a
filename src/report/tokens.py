"""The picture of what a run's best network does with the tokens of some validation images."""

import base64
import io
from dataclasses import dataclass
from typing import Optional

from PIL import Image

from src import runtime
from src.data import val_sample
from src.errors import UserError, first_line
from src.pictures import token_sheet
from src.report.runs import Run
from src.scan import usable
from src.sources import Source, open_source
from src.weights import read_checkpoint

IMAGES = 6
LARGE = 400_000  # bytes of PNG, from which on a picture is a JPEG


@dataclass(frozen=True)
class TokenPicture:
    """A run's picture as a data URI, of so many pixels; or, with no `uri`, why there is none.

    Attributes:
        words: What the picture shows, or why there is none.
    """

    run: str
    words: str
    uri: Optional[str] = None
    width: int = 0
    height: int = 0


def draw(run: Run) -> TokenPicture:
    """The tokens of the best checkpoint, under the run's schedule."""
    if not run.folder.best.is_file():
        return TokenPicture(run.name, "There is no best checkpoint yet.")
    try:
        source = _source(run)
        images, labels = val_sample(source, run.here, IMAGES)
        read_checkpoint(run.folder.best).load_into(run.network)
        data = run.here.data
        title = f"{run.name}, {run.config.model.tokens}"
        sheet = token_sheet(run.network, images, data.mean, data.std, title, source.classes, labels.tolist())
    except Exception as error:  # whatever has become of data and checkpoint since, the rest of the report is of use
        return TokenPicture(run.name, f"The picture cannot be drawn: {' '.join(first_line(error).split())}.")
    names = ", ".join(source.classes[label] for label in labels)
    words = f"{len(images)} validation images (of the classes {names}), and the tokens that each drop keeps of them"
    return TokenPicture(run.name, words, _data_uri(sheet), *sheet.size)


def _source(run: Run) -> Source:
    """The run's validation images; without the bad ones, where those are skipped.

    Raises:
        UserError: The data is missing, or is not what the run was trained on.
    """
    source = open_source(run.here.data, ("val",))
    run.folder.check_classes(source.classes)
    source = usable(source, run.here.data.on_bad_image, runtime.cache_folder())
    if not source.splits["val"].images:
        raise UserError("there are no validation images")
    return source


def _data_uri(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    kind = "png"
    if file.tell() > LARGE:
        kind, file = "jpeg", io.BytesIO()
        picture.convert("RGB").save(file, "JPEG", quality=90, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
