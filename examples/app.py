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
from starlette.exceptions import HTTPException as Refusal

from examples.batching import Batcher, Full
from examples.uploads import Limits, name_of, prepare, read_uploads
from src.export.predictor import Predictor

PAGE = Path(__file__).with_name("page.html")
RETRY = {"Retry-After": "1"}


class Metrics:
    """What Prometheus asks for."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("skipvit_requests", "Predictions that were asked for", ["status"], registry=registry)
        self.seconds = Histogram("skipvit_request_seconds", "From a request's headers to its answer", registry=registry)
        self.batches = Histogram(
            "skipvit_batch_images", "Images of a batch", buckets=[2**n for n in range(8)], registry=registry
        )
        self.at_once = Gauge("skipvit_requests_at_once", "Requests that are read, wait or run", registry=registry)
        self.images = Gauge("skipvit_images_held", "Images that are prepared, wait or run", registry=registry)

    def answers(self) -> dict[str, int]:
        """Return how many requests were answered with each status, in order."""
        (requests,) = self.requests.collect()
        counts = {one.labels["status"]: int(one.value) for one in requests.samples if one.name.endswith("_total")}
        return dict(sorted(counts.items()))


class Service:
    """Predictions for requests, within limits.

    Attributes:
        most: Requests at once.
    """

    def __init__(self, predictor: Predictor, limits: Limits, batching: dict[str, Any], most: int) -> None:
        self.predictor, self.limits, self.most = predictor, limits, most
        self.metrics = Metrics()
        self.at_once = 0
        self.batcher = Batcher(self.run, **batching)
        self.metrics.images.set_function(lambda: self.batcher.held)
        self.metrics.at_once.set_function(lambda: self.at_once)
        self.decoders = ThreadPoolExecutor(os.cpu_count(), "decode")

    def run(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Return what the network says of each image of a batch."""
        self.metrics.batches.observe(len(images))
        trace = self.predictor.ask_about(np.stack(images)).trace
        kept = {str(block): ids.tolist() for block, ids in trace.kept.items()}
        return [
            {**self.predictor.line("", row), **({"kept": {b: ids[i] for b, ids in kept.items()}} if kept else {})}
            for i, row in enumerate(trace.logits)
        ]

    async def predict(self, request: Request, pictures: bool) -> list[dict[str, Any]]:
        """Return a line for each image of a request.

        Raises:
            HTTPException: It is refused.
        """
        status = 500
        try:
            with self.metrics.seconds.time():
                lines = await self._admit(request, pictures)
            status = 200
            return lines
        except Refusal as refusal:
            status = refusal.status_code
            raise
        finally:
            self.metrics.requests.labels(status).inc()

    async def _admit(self, request: Request, pictures: bool) -> list[dict[str, Any]]:
        if self.at_once >= self.most:
            raise HTTPException(503, f"{self.most} requests are being answered; try again later", RETRY)
        self.at_once += 1
        try:
            uploads = await read_uploads(request, self.limits)
            with self.batcher.room_for(len(uploads)):
                return await self._answer(uploads, pictures)
        except Full:
            raise HTTPException(503, f"{self.batcher.room} images are waiting; try again later", RETRY) from None
        finally:
            self.at_once -= 1

    async def _answer(self, uploads: Sequence[UploadFile], pictures: bool) -> list[dict[str, Any]]:
        known, loop, images = self.predictor.known, asyncio.get_running_loop(), []
        for file in uploads:
            images.append(
                await loop.run_in_executor(self.decoders, prepare, file, known.preparation, self.limits.pixels)
            )
        answers = await asyncio.gather(*map(self.batcher.ask, images))
        for file, image, answer in zip(uploads, images, answers):
            answer["image"] = name_of(file)
            if pictures:
                picture = await loop.run_in_executor(self.decoders, _as_png, image)
                answer.update(picture=picture, grid=known.geometry.grid)
        return answers


def _as_png(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def create_app(predictor: Predictor, limits: Limits, batching: dict[str, Any], most: int) -> FastAPI:
    """Return the server of a network.

    Args:
        batching: `size`, `wait` and `room` of a `Batcher`.
        most: Requests at once.
    """

    @asynccontextmanager
    async def run_batches(app: FastAPI) -> AsyncIterator[None]:
        app.state.service = Service(predictor, limits, batching, most)
        working = asyncio.create_task(app.state.service.batcher.work())
        yield
        working.cancel()

    app = FastAPI(lifespan=run_batches, docs_url=None, redoc_url=None, openapi_url=None)
    page = PAGE.read_text(encoding="utf-8")

    @app.get("/", response_class=HTMLResponse)
    async def show() -> str:
        return page

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "tokens": str(predictor.known.plan.schedule)}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(app.state.service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/predict")
    async def predict(request: Request, pictures: bool = False) -> list[dict[str, Any]]:
        return await app.state.service.predict(request, pictures)

    return app
