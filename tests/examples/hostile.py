"""Uploads that are to be refused, of 15 kinds, each different for other random numbers: the status, and the request."""

import struct
import zlib

from tests.examples.served import image
from tests.helpers import damaged

FORM = "multipart/form-data; boundary=b"


def _upload(content, count=1):
    return {"files": [("image", ("a.png", content))] * count}


def form_of(content, head=b'name="image"; filename="a.png"', of_type=""):
    """A request of one file, by hand."""
    body = b"--b\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + content + b"\r\n--b--\r\n"
    return {"content": body, "headers": {"content-type": FORM + of_type}}


def _line_png(random):
    """16 million pixels in one row, in a few thousand bytes."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 16_000_000, 1, 1, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(2_000_001 + random.randrange(2)))
    chunks = (header, data, b"IEND")
    parts = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _many_scans(random):
    """A progressive JPEG whose last scan is there hundreds of times: each takes as long as an image."""
    content = image(random.randrange(99), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * random.randrange(200, 400) + content[-2:]


def _cut(random, request):
    return {**request, "content": request["content"][: random.randrange(1, len(request["content"]) - 10)]}


KINDS = {
    "noise": lambda random: (400, _upload(damaged.KINDS["noise"](random))),
    "empty": lambda random: (400, _upload(b"")),
    "JPEG, cut": lambda random: (400, _upload(damaged.KINDS["JPEG, cut"](random))),
    "one of several": lambda random: (400, {"files": _upload(image(1))["files"] + _upload(b"nothing")["files"]}),
    "GIF": lambda random: (415, _upload(damaged.KINDS["GIF"](random))),
    "vast PNG": lambda random: (413, _upload(damaged.KINDS["vast PNG"](random))),
    "a line of pixels": lambda random: (422, _upload(_line_png(random))),
    "many scans": lambda random: (422, _upload(_many_scans(random))),
    "many bytes": lambda random: (413, _upload(bytes(1_100_000 + random.randrange(99)))),
    "many files": lambda random: (400, _upload(image(random.randrange(99)), 17)),
    "no files": lambda random: (422, form_of(b"text", head=b'name="text"')),
    "JSON": lambda random: (415, {"json": {"image": random.randrange(99)}}),
    "multipart, cut": lambda random: (422, _cut(random, form_of(image(1)))),
    "another boundary": lambda random: (400, form_of(image(1), of_type="c")),
    "a strange charset": lambda random: (415, form_of(image(1), of_type="; charset=undefined")),
}  # fmt: skip
