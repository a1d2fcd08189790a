"""Serve an ONNX file that export.py wrote: predictions as JSON, and a page that shows them.

Example: python -m examples.serve best.onnx
Example: curl -F image=@a.png -F image=@b.png http://127.0.0.1:8000/predict

Needs examples/requirements.txt, and neither MindSpore nor MindCV. POST /predict takes image files as
multipart/form-data and answers with a list: for each a line of src.tools.predict, and the kept tokens where the file
gives them (export.py --format onnx --kept). GET / is a page to drop images on; /health and /metrics are for machines.
Requests that wait are run together. SIGTERM, SIGHUP and Ctrl-C finish what was accepted, and then stop.
"""

import logging
import signal
import socket
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src import cli

if TYPE_CHECKING:
    from examples.app import Service

OPTIONS = (
    ("--port", 8000, "0 for any that is free"),
    ("--batch_size", 0, "images of a batch at most; 0 for as many as the file takes, or 16"),
    ("--wait_ms", 5, "milliseconds that a batch waits for more images"),
    ("--queue", 64, "images that may wait; beyond, 503"),
    ("--max_requests", 128, "requests at once; beyond, 503"),
    ("--max_images", 16, "of a request"),
    ("--max_megabytes", 20, "of a request"),
    ("--max_megapixels", 20, "of an image"),
    ("--upload_seconds", 30, "that an upload may take"),
)


def main(argv: Sequence[str]) -> None:
    """Parse the arguments, open the network, and serve it until a signal."""
    parser = cli.Parser(__doc__, files="FILE", config=False)
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (default: 127.0.0.1)")
    for name, default, meaning in OPTIONS:
        kind = cli.nonnegative_int if name in ("--port", "--batch_size", "--wait_ms") else cli.positive_int
        parser.add_argument(name, type=kind, default=default, metavar="N", help=f"{meaning} (default: {default})")
    args = parser.parse(argv)
    from src.errors import UserError

    try:
        import uvicorn

        from examples.app import create_app

        service = open_service(args)
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed; pip install -r examples/requirements.txt") from error
    with listen(args.host, args.port) as listening:
        host = f"[{args.host}]" if ":" in args.host else args.host
        print(f"serving {args.files[0]} on http://{host}:{listening.getsockname()[1]}", flush=True)
        config = uvicorn.Config(
            create_app(service), http="h11", loop="asyncio", log_level="error",
            timeout_graceful_shutdown=args.upload_seconds + 60,
        )  # fmt: skip
        logging.getLogger("python_multipart").setLevel(logging.ERROR)  # clients must not fill the log either
        server = uvicorn.Server(config)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # uvicorn has a handler, but raises it once more at its end
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(signal.SIGHUP, server.handle_exit)
        server.run(sockets=[listening])
    answers = service.metrics.answers()
    print("stopped; answered: " + (", ".join(f"{n} with {status}" for status, n in answers.items()) or "nothing"))


def open_service(args: Namespace) -> "Service":
    """Open the network.

    Raises:
        UserError: It is none, or the options do not fit it or each other.
    """
    from examples.app import Service
    from examples.uploads import Limits
    from src.errors import UserError
    from src.export.predictor import open_predictor

    if len(args.files) != 1 or not args.files[0].endswith(".onnx"):
        raise UserError("serve takes one FILE, which ends in .onnx; see export.py --format onnx")
    if args.queue < args.max_images:
        raise UserError(f"--queue {args.queue} has no room for a request's --max_images {args.max_images}; raise it")
    predictor = open_predictor(Path(args.files[0]), None, args.overrides, 0)
    size = predictor.batch_size
    if size and args.batch_size not in (0, size):
        raise UserError(f"--batch_size {args.batch_size}: {args.files[0]} takes batches of {size}; leave it out")
    batching = {"size": args.batch_size or size or 16, "wait": args.wait_ms / 1000, "room": args.queue}
    limits = Limits(args.max_images, 10**6 * args.max_megabytes, 10**6 * args.max_megapixels, args.upload_seconds)
    return Service(predictor, limits, batching, args.max_requests)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UserError: It cannot be had.
    """
    from src.errors import UserError

    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", error)).partition(" (")[0]
        raise UserError(f"--host {host} --port {port}: {reason}; choose another") from error


if __name__ == "__main__":
    cli.run(main)
