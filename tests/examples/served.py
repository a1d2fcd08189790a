"""A small network to serve, images to ask it about, and a server in a process of its own."""

import dataclasses
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import uvicorn
from PIL import Image

from src.config import Config, ModelConfig
from src.data.prepare import Preparation
from src.export.onnx.file import write
from src.schedules import Geometry
from src.weights import Checkpoint
from src.weights.load import shapes_of
from tests.helpers.commands import ROOT

MODEL = ModelConfig(
    image_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=2, num_classes=5, tokens="1,2(30%,30%)+4"
)
CLASSES = ["ant", "bee", "cat", "dog", "<b>eel</b>"]


def write_network(path, form):
    """Write a network of random weights, whose answers differ from image to image."""
    random, config = np.random.RandomState(0), Config(model=MODEL)
    shapes = shapes_of(Geometry.from_config(MODEL))
    weights = {name: random.standard_normal(shape).astype(np.float32) / 4 for name, shape in shapes.items()}
    facts = {
        "tokens": MODEL.tokens, "model": json.dumps(dataclasses.asdict(MODEL)), "classes": json.dumps(CLASSES),
        "preprocessing": Preparation.of(config).text(),
    }  # fmt: skip
    write(path, config, Checkpoint(Path("weights"), weights, None), form, facts)
    return path


def image(seed, form="PNG", size=(40, 50), **options):
    """The content of an image file of noise about a colour."""
    random = np.random.RandomState(seed)
    pixels = random.randint(0, 80, (*size, 3)) + random.randint(0, 170, 3)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, form, **options)
    return file.getvalue()


@contextmanager
def answering(app):
    """Serve an application in a thread of this process; yields a client of it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, http="h11", loop="asyncio", log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def serving(*arguments, cwd, first=""):
    """Run the command in a process of its own, on a free port; yields it and its address, and kills it at the end.

    Args:
        first: Python code that runs before it.
    """
    code = f"{first}\nfrom src import cli\nfrom examples import serve\ncli.run(serve.main)"
    command = [sys.executable, "-c", code, *map(str, arguments), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"serving \S+ on (http://127\.0\.0\.1:\d+)\n", line)
        assert found, line + process.stderr.read()
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()
