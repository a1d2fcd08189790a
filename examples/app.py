"""What the server answers: predictions, a page that shows them, health and metrics."""

import asyncio
import base64
import io
import os
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse
from PIL import Image
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as Refusal  # FastAPI's, and those of forms

from examples.batching import Batcher, Full
from examples.uploads import Limits, name_of, prepare, read_uploads
from src.export.predictor import Predictor

PAGE = Path(__file__).with_name("page.html")


class Metrics:
    """What Prometheus asks for."""

    def __init__(self) -> None:
        self.registry = to = CollectorRegistry()
        ProcessCollector(registry=to)
        self.requests = Counter("skipvit_requests", "Requests for predictions, by status", ["status"], registry=to)
        self.seconds = Histogram("skipvit_request_seconds", "From a request's headers to its answer", registry=to)
        sizes = [2**n for n in range(8)]
        self.batches = Histogram("skipvit_batch_images", "Images of a batch", buckets=sizes, registry=to)
        self.at_once = Gauge("skipvit_requests_at_once", "Requests that are read, wait or run", registry=to)
        self.held = Gauge("skipvit_images_held", "Images that are prepared, wait or run", registry=to)

    def answers(self) -> dict[str, int]:
        """Return how many requests were answered with each status, in order."""
        (requests,) = self.requests.collect()
        counts = {one.labels["status"]: int(one.value) for one in requests.samples if one.name.endswith("_total")}
        return dict(sorted(counts.items()))


class Service:
    """Predictions for requests.

    Attributes:
        batching: `size`, `wait` and `room` of the `Batcher`.
        most: Requests at once.
    """

    def __init__(self, predictor: Predictor, limits: Limits, batching: dict[str, Any], most: int) -> None:
        self.predictor, self.limits, self.batching, self.most = predictor, limits, batching, most
        self.at_once, self.metrics = 0, Metrics()
        self.decoders = ThreadPoolExecutor(os.cpu_count(), "decode")

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """Run batches while the server runs."""
        self.batcher = Batcher(self.run, **self.batching)
        self.metrics.held.set_function(lambda: self.batcher.held)
        self.metrics.at_once.set_function(lambda: self.at_once)
        working = asyncio.create_task(self.batcher.work())
        yield
        working.cancel()

    def run(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Return what the network says of each image of a batch."""
        self.metrics.batches.observe(len(images))
        trace = self.predictor.ask_about(np.stack(images)).trace
        answers = [self.predictor.line("", row) for row in trace.logits]
        for number, answer in enumerate(answers if trace.kept else ()):
            answer["kept"] = {str(block): places[number].tolist() for block, places in trace.kept.items()}
        return answers

    async def predict(self, request: Request, pictures: bool = False) -> list[dict[str, Any]]:
        """Return a line for each image of a request.

        Raises:
            HTTPException: It is refused.
        """
        status = 500
        self.at_once += 1
        try:
            with self.metrics.seconds.time():
                answers = await self._predict(request, pictures)
            status = 200
            return answers
        except Refusal as refusal:
            status = refusal.status_code
            raise
        finally:
            self.at_once -= 1
            self.metrics.requests.labels(status).inc()

    async def _predict(self, request: Request, pictures: bool) -> list[dict[str, Any]]:
        if self.at_once > self.most:
            raise _busy(f"{self.most} requests are being answered")
        uploads = await read_uploads(request, self.limits)
        try:
            with self.batcher.room_for(len(uploads)):
                return await self._answer(uploads, pictures)
        except Full:
            raise _busy(f"{self.batcher.room} images are waiting") from None
        finally:
            for file in uploads:
                file.file.close()

    async def _answer(self, uploads: Sequence[UploadFile], pictures: bool) -> list[dict[str, Any]]:
        known, loop = self.predictor.known, asyncio.get_running_loop()
        told = known.preparation, self.limits.pixels
        images = [await loop.run_in_executor(self.decoders, prepare, file, *told) for file in uploads]
        answers = await asyncio.gather(*map(self.batcher.ask, images))
        for file, image, answer in zip(uploads, images, answers):
            answer["image"] = name_of(file)
            if pictures:
                answer["picture"] = await loop.run_in_executor(self.decoders, _as_png, image)
                answer["grid"] = known.geometry.grid
        return answers


def _busy(why: str) -> HTTPException:
    return HTTPException(503, f"{why}; try again later", {"Retry-After": "1"})


def _as_png(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def create_app(service: Service) -> FastAPI:
    """Return a server of predictions; its documentation would load scripts from elsewhere."""
    app = FastAPI(lifespan=service.running, docs_url=None, redoc_url=None, openapi_url=None)
    app.post("/predict")(service.predict)
    page = PAGE.read_text(encoding="utf-8")

    @app.get("/", response_class=HTMLResponse)
    async def show() -> str:
        return page

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "tokens": str(service.predictor.known.plan.schedule)}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app
