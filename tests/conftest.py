"""Fixtures: the device, the two execution modes, small data sets."""

import contextlib
import gc
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.runtime import device


@pytest.fixture(autouse=True, scope="session")
def set_up_device():
    device.set_up("CPU", fused_kernels="off")


@pytest.fixture(params=["graph", "pynative"])
def mode(request):
    """Run the test in both execution modes."""
    from tests.helpers.modes import pynative

    with pynative() if request.param == "pynative" else contextlib.nullcontext():
        yield request.param


@pytest.fixture
def fused(monkeypatch, tmp_path):
    """Run the test with fused kernels."""
    monkeypatch.chdir(tmp_path)  # AKG leaves a log in the working directory
    device.set_up("CPU", fused_kernels="on")
    yield
    device.set_up("CPU", fused_kernels="off")


@pytest.fixture(autouse=True, scope="session")
def freeze():
    """Spare `collect` the walk through what imported libraries have made, a third of a million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def collect():
    """Free networks between tests: one that is freed while another compiles makes that one compile twice.

    A test that ends sooner than a network can be built has left none.
    """
    started = time.monotonic()
    yield
    if time.monotonic() - started > 0.1:
        gc.collect()


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """An image folder like ImageNet's: train and val, odd sizes, colour and greyscale, JPEG and PNG; 3 classes."""
    from PIL import Image

    root = tmp_path_factory.mktemp("photos")
    random = np.random.RandomState(0)
    for split, count in (("train", 6), ("val", 3)):
        for label, name in enumerate(("ant", "bee", "cat")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                height, width = random.randint(20, 60, 2)
                pixels = random.randint(0, 80, (height, width, 3)).astype(np.uint8)
                pixels[..., label] += 150
                image = Image.fromarray(pixels).convert("L" if i == 0 else "RGB")
                image.save(folder / f"{i}.{('JPEG', 'png', 'jpg')[i % 3]}")
    return root


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: how a browser shows a page was not looked at")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as library:
        browser = library.chromium.launch(executable_path=CHROMIUM, args=FLAGS)  # in a new, empty profile
        yield browser
        browser.close()


COSTLY = {"trained", "one_and_two", "refused", "one", "two", "finished"}  # fixtures of a module that take seconds


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Keep the tests that share a costly fixture in one process, so that it is made once."""
    for item in items:
        shared = COSTLY & set(item.fixturenames)
        if shared:
            item.add_marker(pytest.mark.xdist_group(f"{item.module.__name__} {min(shared)}"))


@pytest.fixture
def compiled(monkeypatch):
    """The name of each cell that MindSpore is asked to compile, and whether it did or had the graph already."""
    from mindspore.common.api import _cell_graph_executor

    compiled = []
    original = type(_cell_graph_executor).compile

    def counting(self, obj, *args, **kwargs):
        result = original(self, obj, *args, **kwargs)
        compiled.append((type(obj).__name__, result[1]))
        return result

    monkeypatch.setattr(type(_cell_graph_executor), "compile", counting)
    return compiled
