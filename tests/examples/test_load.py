"""The server under load, in a process of its own: nothing is lost, nobody suffers, memory stays."""

import random
import re
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from src.export.onnx.file import Form
from tests.examples.hostile import KINDS, form_of
from tests.examples.served import image, serving, write_network

IMAGES = [image(seed, form) for seed in range(4) for form in ("PNG", "JPEG")]
CLIENTS = 8
CLIENT = httpx.Client(timeout=60)  # making one takes longer than a request
OPTIONS = ("--max_megabytes", "1", "--batch_size", "4")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("load")
    write_network(folder / "a.onnx", Form(0, kept=True))
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with serving("a.onnx", *OPTIONS, cwd=folder) as (process, address):
        yield process, address


@pytest.fixture(scope="module")
def expected(server):
    """What is said of each of the images, alone."""
    return [ask(CLIENT, server[1], number).json() for number in range(len(IMAGES))]


def ask(client, address, number):
    return client.post(f"{address}/predict", files={"image": ("a", IMAGES[number % len(IMAGES)])})


def in_clients(work):
    """Call `work` with a client and each client's number, at once; return what all of them found."""

    def run(number):
        with httpx.Client(timeout=60) as client:
            return work(client, number)

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [found for one in pool.map(run, range(CLIENTS)) for found in one]


def metric(address, name):
    return float(re.search(rf"^skipvit_{name} (\S+)$", CLIENT.get(f"{address}/metrics").text, re.M)[1])


def wait_until(true):
    for _ in range(3000):
        if true():
            return
        time.sleep(0.01)
    raise TimeoutError


def listens(address):
    host, port = address.removeprefix("http://").split(":")
    with socket.socket() as connection:
        return connection.connect_ex((host, int(port))) == 0


def test_two_thousand_requests_of_eight_clients_are_answered_and_memory_is_flat(server, expected):
    process, address = server
    memory, first_batches = psutil.Process(process.pid).memory_info, metric(address, "batch_images_count")

    def work(client, number):
        answers = [(index, ask(client, address, index)) for index in range(number, 1000, CLIENTS)]
        return [(index % len(IMAGES), answer.status_code, answer.json()) for index, answer in answers]

    sizes = []
    for _ in range(2):
        for number, status, answer in in_clients(work):
            assert status == 200
            assert answer[0]["kept"] == expected[number][0]["kept"]
            assert answer[0]["top5"] == expected[number][0]["top5"]
        sizes.append(memory().rss)
    print(f"RSS after 1,000 and 2,000 requests: {sizes[0] / 1e6:.1f} and {sizes[1] / 1e6:.1f} MB")
    assert sizes[1] - sizes[0] < 2e6
    assert metric(address, "batch_images_count") - first_batches < 1500, "batches are formed"


def test_hostile_uploads_are_refused_and_good_ones_beside_them_are_answered(folder, expected):
    makers = list(KINDS.items())
    with serving("a.onnx", *OPTIONS, cwd=folder) as (process, address):

        def work(client, number):
            found = []
            for index in range(number, 400, CLIENTS):
                if index % 2:
                    found.append(("good", index // 2 % len(IMAGES), ask(client, address, index // 2)))
                    continue
                kind, make = makers[index // 2 % len(makers)]
                status, request = make(random.Random(index))
                found.append((kind, status, client.post(f"{address}/predict", **request)))
            return found

        counts = Counter()
        for kind, due, response in in_clients(work):
            counts[kind] += 1
            if kind == "good":
                assert response.status_code == 200
                assert response.json()[0]["top5"] == expected[due][0]["top5"]
            else:
                assert (kind, response.status_code) == (kind, due)
        assert counts.pop("good") == sum(counts.values()) == 200
        assert len(counts) >= 10
        assert (metric(address, "requests_at_once"), metric(address, "images_held")) == (0, 0)
        process.terminate()
        said, errors = process.communicate(timeout=30)
    assert said.startswith("stopped; answered: 200 with 200, ")
    assert errors == "", "clients do not fill the log"


def connect(address, body, length=1000):
    """Send a part of an upload, and leave the rest."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    head = "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode() + body)
    return connection


def test_slow_and_left_uploads_hold_nobody(folder):
    whole = form_of(IMAGES[0])["content"]
    with serving("a.onnx", "--upload_seconds", "5", cwd=folder) as (process, address):
        slow = [connect(address, b"--b\r\n") for _ in range(20)]
        left = [connect(address, b"--b\r\n") for _ in range(20)]
        left += [connect(address, whole, len(whole)) for _ in range(20)]
        for connection in left:
            connection.close()
        assert all(ask(CLIENT, address, number).status_code == 200 for number in range(10))
        wait_until(lambda: metric(address, "requests_at_once") <= 20)
        assert metric(address, "requests_at_once") == 20, "the slow ones are there, and nobody waits for them"
        for connection in slow:
            assert b" 408 Request Timeout" in connection.recv(1000)
            connection.close()
        assert metric(address, "requests_at_once") == 0
        process.terminate()
        said, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert said == "stopped; answered: 30 with 200, 20 with 400, 20 with 408\n"


HELD = """
import time
from pathlib import Path
from src.export.predictor import Predictor
ask_about = Predictor.ask_about
def held(self, pixels):
    while not Path("go").exists():
        time.sleep(0.01)
    return ask_about(self, pixels)
Predictor.ask_about = held
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_loses_nothing_that_was_accepted(folder, number):
    """24 requests wait, and an upload is not whole, when it is sent; a new request is refused."""
    (folder / "go").unlink(missing_ok=True)
    arguments = ("a.onnx", *OPTIONS, "--upload_seconds", "60")
    with serving(*arguments, cwd=folder, first=HELD) as (process, address), ThreadPoolExecutor(24) as pool:
        try:
            begun = connect(address, b"--b\r\n", 7)
            answers = [pool.submit(ask, CLIENT, address, number) for number in range(24)]
            wait_until(lambda: metric(address, "requests_at_once") == 25 and metric(address, "images_held") == 24)
            process.send_signal(number)
            wait_until(lambda: not listens(address))
        finally:
            (folder / "go").touch()
        begun.sendall(b"\r\n")
        assert b" 400 Bad Request" in begun.recv(1000)
        assert {answer.result().status_code for answer in answers} == {200}
        said, errors = process.communicate(timeout=30)
    assert (process.returncode, said, errors) == (0, "stopped; answered: 24 with 200, 1 with 400\n", "")


def test_a_signal_under_load_loses_nothing_that_was_answered(folder):
    """Every answer that the server counts has reached its client."""
    with serving("a.onnx", *OPTIONS, cwd=folder) as (process, address), ThreadPoolExecutor(1) as pool:
        began = threading.Barrier(CLIENTS + 1)

        def work(client, number):
            found = [ask(client, address, number).status_code]
            began.wait()
            try:
                while True:
                    found.append(ask(client, address, number).status_code)
            except httpx.TransportError as error:
                return [*found, type(error).__name__]

        clients = pool.submit(in_clients, work)
        began.wait()
        time.sleep(1)
        process.terminate()
        said, errors = process.communicate(timeout=30)
        counts = Counter(clients.result())
    print(f"{counts}; the server: {said.strip()}")
    answered = counts.pop(200)
    assert answered > 2 * CLIENTS
    assert (process.returncode, said, errors) == (0, f"stopped; answered: {answered} with 200\n", "")
    assert set(counts) <= {"ConnectError", "ReadError", "RemoteProtocolError"}, "new requests are refused"
