"""Damaged and odd images of 15 kinds, each different for other random numbers."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def _encoded(random, form, size=48, **options):
    pixels = np.frombuffer(random.randbytes(size * size * 3), np.uint8).reshape(size, size, 3)
    image = Image.fromarray(pixels).convert(options.pop("mode", "RGB"))
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _flipped(random, content, count):
    content = bytearray(content)
    for _ in range(count):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    return bytes(content)


def _png_without(random, chunk):
    content = _encoded(random, "PNG", mode="P")
    at = content.index(chunk) - 4
    (length,) = struct.unpack(">I", content[at : at + 4])
    return content[:at] + content[at + 12 + length :]


def _vast_png(random):
    """A header of 16 billion pixels over the data of a few."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 2**17, 2**17, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return start + _encoded(random, "PNG")[33:]


KINDS = {
    "empty": lambda random: b"",
    "zeros": lambda random: b"\0" * random.randrange(1, 9999),
    "noise": lambda random: random.randbytes(random.randrange(1, 9999)),
    "a page": lambda random: b"<html>" + random.randbytes(40).hex().encode(),
    "PNG's beginning": lambda random: b"\x89PNG\r\n\x1a\n" + random.randbytes(99),
    "JPEG, cut": lambda random: (content := _encoded(random, "JPEG"))[: random.randrange(2, len(content))],
    "PNG, cut": lambda random: _encoded(random, "PNG")[: -random.randrange(1, 200)],
    "PNG without its end": lambda random: _png_without(random, b"IEND"),
    "PNG without its palette": lambda random: _png_without(random, b"PLTE"),
    "JPEG, flipped": lambda random: _flipped(random, _encoded(random, "JPEG"), random.randrange(1, 20)),
    "PNG, flipped": lambda random: _flipped(random, _encoded(random, "PNG"), random.randrange(1, 20)),
    "GIF": lambda random: _encoded(random, "GIF"),
    "WebP": lambda random: _encoded(random, "WEBP"),
    "BMP, spoilt": lambda random: _flipped(random, _encoded(random, "BMP")[:200], 30),
    "vast PNG": _vast_png,
}
