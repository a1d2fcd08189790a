"""The images of a request, within limits: what is too large, too slow or no image is refused with a line."""

import asyncio
import io
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import HTTPException, Request
from PIL import Image
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from src.data.prepare import Preparation, decode_content
from src.data.verify import FORMATS
from src.errors import UserError, plain

# no charset: names would be decoded with any codec that Python has
MULTIPART = re.compile(r'multipart/form-data; *boundary="?[\w\'()+,./:=?-]{1,70}"?', re.IGNORECASE)
LONGEST = 32  # times the shorter side; resizing makes the shorter side as large as the network needs
MOST_SCANS = 100  # of a JPEG: a progressive one has about 10, and each may decode all pixels again


@dataclass(frozen=True)
class Limits:
    """What a request may take.

    Attributes:
        images: Of a request.
        bytes: Of a request's body.
        pixels: Of an image.
        seconds: That an upload may take.
    """

    images: int
    bytes: int
    pixels: int
    seconds: int


async def read_uploads(request: Request, limits: Limits) -> list[UploadFile]:
    """Return the files of a request, read to memory or, where they are larger than 1 MB, to temporary files.

    Raises:
        HTTPException: It has none, too many or too much, takes too long, or cannot be understood.
    """
    if not MULTIPART.fullmatch(request.headers.get("content-type", "")):
        raise HTTPException(415, "send images as multipart/form-data: curl -F image=@FILE")
    counted = Request(request.scope, _counted(request.receive, limits.bytes))
    try:
        reading = counted.form(max_files=limits.images, max_fields=1, max_part_size=1000)
        form = await asyncio.wait_for(reading, limits.seconds)
    except asyncio.TimeoutError:
        raise HTTPException(408, f"the upload took longer than {limits.seconds} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the client left before its upload was whole") from None
    except FormParserError as error:
        raise HTTPException(400, f"the body is no multipart/form-data: {error}") from None
    uploads = [upload for _, upload in form.multi_items()]
    if not uploads or not all(isinstance(upload, UploadFile) for upload in uploads):
        await form.close()
        raise HTTPException(422, "a request holds images as files, and nothing else: curl -F image=@FILE")
    return uploads  # type: ignore[return-value]


def _counted(receive: Callable[[], Awaitable[Any]], most: int) -> Callable[[], Awaitable[Any]]:
    """Return an ASGI receiver that refuses a body of more bytes."""
    received = 0

    async def receive_counted() -> Any:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise HTTPException(413, f"a request may have {most:,} bytes")
        return message

    return receive_counted


def name_of(upload: UploadFile) -> str:
    return plain(upload.filename or "image")[:100]


def prepare(upload: UploadFile, preparation: Preparation, most_pixels: int) -> np.ndarray:
    """Return an uploaded image as a network takes it, uint8 [H, W, 3].

    Raises:
        HTTPException: It is none, or one that takes too much to decode.
    """
    content = upload.file.read()
    try:
        _check_header(content, most_pixels)
        return preparation.fit(decode_content(content))
    except HTTPException as refusal:
        raise HTTPException(refusal.status_code, f"image {name_of(upload)}: {refusal.detail}") from None
    except UserError as error:
        raise HTTPException(400, f"image {name_of(upload)}: {plain(str(error))}") from None


def _check_header(content: bytes, most_pixels: int) -> None:
    """Refuse an image by what its header says; one that is not understood is left to the decoder."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            form, (width, height) = image.format, image.size
    except Image.DecompressionBombError:
        raise HTTPException(413, f"an image may have {most_pixels:,} pixels") from None
    except Exception:
        return
    if form not in FORMATS:
        raise HTTPException(415, f"{form} is not among {', '.join(sorted(FORMATS))}")
    if width * height > most_pixels:
        raise HTTPException(413, f"an image may have {most_pixels:,} pixels, not {width}x{height}")
    if max(width, height) > LONGEST * min(width, height):
        raise HTTPException(422, f"{width}x{height} pixels: a side may be {LONGEST} times as long as the other")
    if form in ("JPEG", "MPO") and content.count(b"\xff\xda") > MOST_SCANS:
        raise HTTPException(422, f"a JPEG may have {MOST_SCANS} scans")
