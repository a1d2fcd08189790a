"""The server in this process: what it answers, what it refuses, and how batches are formed."""

import asyncio
import json
import random
import re
import socket
import threading
import time

import httpx
import numpy as np
import pytest

from examples.app import Service, create_app
from examples.batching import Batcher, Full
from examples.uploads import Limits
from src.export.onnx.file import Form
from src.export.predictor import open_predictor
from tests.examples.hostile import KINDS
from tests.examples.served import CLASSES, answering, image, serving, write_network
from tests.helpers.commands import ROOT, run_here

LIMITS = Limits(images=16, bytes=10**6, pixels=10**6 * 20, seconds=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """a.onnx of any batch with kept tokens, and static.onnx for 4 images of bytes."""
    folder = tmp_path_factory.mktemp("served")
    write_network(folder / "a.onnx", Form(0, kept=True))
    write_network(folder / "static.onnx", Form(4, uint8=True))
    for number in range(3):
        (folder / f"{number}.png").write_bytes(image(number))
    return folder


def client_of(file, size=4, wait=0.0, room=64, most=128):
    predictor = open_predictor(file, None, {}, 0)
    return answering(create_app(Service(predictor, LIMITS, {"size": size, "wait": wait, "room": room}, most)))


@pytest.fixture(scope="module")
def client(folder):
    with client_of(folder / "a.onnx") as client:
        yield client


def files_of(*numbers):
    return [("image", (f"{number}.png", image(number))) for number in numbers]


@pytest.mark.parametrize("name", ["a.onnx", "static.onnx"])
def test_answers_are_the_lines_of_predict(folder, name):
    said = run_here("src.tools.predict", name, "0.png", "1.png", "2.png", "--json", cwd=folder).stdout.splitlines()
    predictor = open_predictor(folder / name, None, {}, 0)
    kept = predictor.ask([folder / f"{number}.png" for number in range(3)]).trace.kept
    with client_of(folder / name) as client:
        answers = client.post("/predict", files=files_of(0, 1, 2)).raise_for_status().json()
    for number, (answer, line) in enumerate(zip(answers, map(json.loads, said))):
        expected = {str(block): places[number].tolist() for block, places in kept.items()}
        assert answer.pop("kept", {}) == expected
        assert answer == line
    assert list(kept) == ([1, 2] if name == "a.onnx" else [])
    assert len({json.dumps(answer["top5"]) for answer in answers}) == 3
    assert {name for name, _ in answers[0]["top5"]} == set(CLASSES)


def test_a_picture_is_what_the_network_sees(client):
    (plain,) = client.post("/predict", files=files_of(1)).json()
    (answer,) = client.post("/predict?pictures=true", files=files_of(1)).json()
    assert answer.pop("picture").startswith("data:image/png;base64,iVBOR")
    assert answer.pop("grid") == [4, 4]
    assert answer == plain


def test_what_is_hostile_is_refused_with_a_line(client):
    for number, (kind, make) in enumerate(3 * list(KINDS.items())):
        status, request = make(random.Random(number))
        response = client.post("/predict", **request)
        assert response.status_code == status, f"{kind}: {response.text}"
        (said,) = response.json().values()
        assert 10 < len(said) < 300, kind
        assert "\n" not in said
    assert client.post("/predict", files=files_of(1)).status_code == 200
    assert re.findall(r"^skipvit_(\w+) 0.0$", client.get("/metrics").text, re.M) == ["requests_at_once", "images_held"]


def test_health_metrics_and_the_page(client):
    assert client.get("/health").json() == {"status": "ok", "tokens": "1,2(30%,30%)+4"}
    client.post("/predict", files=files_of(1))
    client.post("/predict", files=[("image", ("a.png", b""))])
    metrics = client.get("/metrics").text
    for line in (
        'requests_total{status="200"} ',
        'requests_total{status="400"} ',
        "batch_images_count ",
        "images_held 0.0",
    ):
        assert f"\nskipvit_{line}" in metrics
    page = client.get("/").text.replace('href="data:,"', "")
    assert "//" not in page.replace("// ", ""), "no address of anything outside"
    for name in ("src=", "href=", "@import", "url("):
        assert name not in page
    assert client.get("/docs").status_code == 404


def test_when_there_is_no_room_a_client_is_told_to_come_later(folder):
    with client_of(folder / "a.onnx", room=2) as client:
        refused = client.post("/predict", files=files_of(0, 1, 2))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json() == {"detail": "2 images are waiting; try again later"}
        assert client.post("/predict", files=files_of(0, 1)).status_code == 200
    with client_of(folder / "a.onnx", most=0) as client:
        assert client.post("/predict", files=files_of(0)).status_code == 503


def run_batches(scenario, run, **options):
    async def main():
        batcher = Batcher(run, **{"size": 4, "wait": 0.01, "room": 8, **options})
        working = asyncio.create_task(batcher.work())
        try:
            return await asyncio.wait_for(scenario(batcher), 10)
        finally:
            working.cancel()

    return asyncio.run(main())


def test_images_that_wait_are_run_together_and_get_their_own_answers():
    sizes, threads = [], set()

    def run(images):
        sizes.append(len(images))
        threads.add(threading.current_thread().name)
        time.sleep(0.02)
        return [image * 2 for image in images]

    async def ask_ten(batcher):
        return await asyncio.gather(*(batcher.ask(np.array(number)) for number in range(10)))

    assert run_batches(ask_ten, run) == [2 * number for number in range(10)]
    assert sizes == [4, 4, 2]
    assert threads == {"inference_0"}


def test_a_batch_waits_a_little_for_more():
    async def ask_one_after_the_other(batcher):
        first = asyncio.create_task(batcher.ask(1))
        await asyncio.sleep(0.02)
        return await asyncio.gather(first, batcher.ask(2))

    for wait, sizes in ((0.2, [2, 2]), (0.0, [1, 1])):
        assert run_batches(ask_one_after_the_other, lambda images: [len(images)] * len(images), wait=wait) == sizes


def test_an_error_is_that_of_its_batch_alone_and_room_is_given_back():
    def run(images):
        if 3 in images:
            raise ValueError("three")
        return images

    async def ask_three_first(batcher):
        with pytest.raises(Full), batcher.room_for(8), batcher.room_for(1):
            pass
        with pytest.raises(ValueError, match="three"), batcher.room_for(8):
            await batcher.ask(3)
        left = asyncio.create_task(batcher.ask(4))
        await asyncio.sleep(0)
        left.cancel()
        return await batcher.ask(5), batcher.held

    assert run_batches(ask_three_first, run) == (5, 0)


def packages(file):
    """What a file of requirements asks for, by name."""
    lines = [line.partition("  #")[0] for line in (ROOT / file).read_text().splitlines()]
    return {re.split("[<>]", line)[0]: line for line in lines if line[0] not in "#-"}


def test_it_needs_no_more_than_its_requirements(folder):
    """Neither MindSpore nor MindCV, and nothing else that the project asks for and it does not."""
    own, others = packages("examples/requirements.txt"), packages("requirements.txt")
    hidden = {*others} - {*own} | {"sklearn", "onnx", "onnx_ir"}
    assert {"mindspore", "mindcv"} < hidden
    assert all(own[name] == others[name] for name in own if name in others)
    first = f"import sys; sys.modules.update(dict.fromkeys({sorted(hidden)}))"
    with serving("a.onnx", cwd=folder, first=first) as (process, address):
        assert httpx.post(f"{address}/predict", files=files_of(0)).status_code == 200
        process.terminate()
        said = process.communicate(timeout=30)
    assert (process.returncode, *said) == (0, "stopped; answered: 1 with 200\n", "")


def test_a_wrong_start_ends_in_a_line(folder):
    (folder / "nothing.onnx").write_text("nothing")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, message in (
            (["nothing.onnx"], "nothing.onnx is no file that onnxruntime"),
            (["missing.onnx"], "missing.onnx does not exist"),
            (["a.ckpt"], "serve takes one FILE, which ends in .onnx"),
            (["a.onnx", "model.tokens=none"], "a.onnx has its configuration inside"),
            (["static.onnx", "--batch_size", "8"], "--batch_size 8: static.onnx takes batches of 4"),
            (["a.onnx", "--queue", "8"], "--queue 8 has no room for a request's --max_images 16"),
            (["a.onnx", "--port", port], f"--host 127.0.0.1 --port {port}: Address already in use; choose another"),
            (["a.onnx", "--host", "192.0.2.1"], "--host 192.0.2.1 --port 8000: Cannot assign requested address; "),
        ):
            refused = run_here("examples.serve", *arguments, cwd=folder)
            assert (refused.returncode, refused.stdout) == (2, "")
            assert refused.stderr.startswith(f"error: {message}")
