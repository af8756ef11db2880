"""A service that explains predictions: FastAPI and uvicorn, requests batched, limits, metrics.

    pip install fastapi uvicorn
    PYLRP_MODEL=model.onnx python examples/service.py     (or uvicorn service:app in this folder, with its options)

POST /explain takes {"x": [...], "target": 3}: a sample as the network takes it, as nested lists, or {"x": "<base64>",
"shape": [...]} of float32; target is optional. It returns the class, its output, the relevance, and what was absorbed.
GET /health says whether the network is warm, GET /metrics has counters for Prometheus. Without PYLRP_MODEL it explains
the bundled digits.

One process loads the network once and has one thread that explains; while it works, requests queue up and become its
next batch. More processes: uvicorn --workers N, with the network in a file of net.save, mapped: they share it.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, NonNegativeInt

import pylrp
from pylrp.demo import load_demo_network
from pylrp.layers import Dense, ReLU

MOST_IN_BATCH = int(os.environ.get("PYLRP_BATCH", "32"))
MOST_WAITING = int(os.environ.get("PYLRP_QUEUE", "256"))
COMPOSITE = os.environ.get("PYLRP_COMPOSITE")


class Request(BaseModel):
    """What a client sends."""

    x: list[Any] | str
    shape: list[NonNegativeInt] | None = None
    target: int | None = None


@dataclass
class Metrics:
    """Counters since the start."""

    requests: int = 0
    refused: int = 0
    batches: int = 0
    samples: int = 0
    explaining: float = 0.0  # seconds in the network's explain, waits for the interpreter's lock included
    computing: float = 0.0  # the thread's seconds of the processor in it
    waiting: float = 0.0

    def text(self) -> str:
        """Return them as Prometheus reads them."""
        names = {name: f"{name}_seconds" for name in ("explaining", "computing", "waiting")}
        return "".join(f"pylrp_{names.get(name, name)}_total {value}\n" for name, value in vars(self).items())


@dataclass
class Waiting:
    """A sample in the queue."""

    x: Any
    target: int
    answer: asyncio.Future[Any]
    since: float = field(default_factory=time.perf_counter)


class Batches:
    """Collects samples while a batch is explained, and explains them together next."""

    def __init__(self, network: pylrp.Network):
        self.network, self.metrics = network, Metrics()
        self.shape = network.graph.user_shape(next(iter(network.graph.inputs)))
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue(MOST_WAITING)
        self._thread = ThreadPoolExecutor(1)
        self.warm = False

    async def run(self) -> None:
        """Explain for ever."""
        loop = asyncio.get_running_loop()
        for count in (1, MOST_IN_BATCH):  # memory is taken and plans are made before the first request
            await loop.run_in_executor(
                self._thread, self._explain, np.ones((count, *self.shape), self.network.dtype), [-1] * count
            )
        self.warm = True
        while True:
            batch = [await self._queue.get()]
            while len(batch) < MOST_IN_BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                await self._answer(loop, batch)
            except Exception as error:  # no fault of these requests: they get a 500, later ones an answer
                for one in batch:
                    if not one.answer.done():
                        one.answer.set_exception(error)

    async def _answer(self, loop: asyncio.AbstractEventLoop, batch: list[Waiting]) -> None:
        began = time.perf_counter()
        x, targets = np.stack([one.x for one in batch]), [one.target for one in batch]
        try:
            found: Any = await loop.run_in_executor(self._thread, self._explain, x, targets)
        except ValueError:  # one of them fails: who?
            found = [await self._alone(loop, one) for one in batch]
        metrics = self.metrics
        metrics.batches += 1
        metrics.samples += len(batch)
        for one, answer in zip(batch, found, strict=True):
            metrics.waiting += began - one.since
            if one.answer.done():  # the client is gone
                continue
            if isinstance(answer, Exception):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)

    async def _alone(self, loop: asyncio.AbstractEventLoop, one: Waiting) -> Any:
        try:
            return (await loop.run_in_executor(self._thread, self._explain, one.x[None], [one.target]))[0]
        except ValueError as error:
            return error

    def _explain(self, x: Any, targets: list[int]) -> list[dict[str, Any]]:
        began, own = time.perf_counter(), time.thread_time()
        target: Any = np.array(targets)
        if (target < 0).all():  # the top class where none is asked for
            ex = self.network.explain(x, composite=COMPOSITE)
            target = ex.target
        else:
            if (target < 0).any():
                target = np.where(target < 0, self.network.forward(x).argmax(axis=1), target)
            ex = self.network.explain(x, target=target, composite=COMPOSITE)
        self.metrics.explaining += time.perf_counter() - began  # only this thread writes it
        self.metrics.computing += time.thread_time() - own
        absorbed = sum(row.absorbed for row in ex.ledger)
        return [
            {
                "target": int(target[i]),
                "output": float(ex.output[i, target[i]]),
                "absorbed": float(absorbed[i]),
                "relevance": base64.b64encode(ex.relevance[i].astype(np.float32).tobytes()).decode(),
                "shape": list(ex.relevance[i].shape),
            }
            for i in range(len(x))
        ]

    def put(self, sample: Waiting) -> None:
        """Queue a sample, or raise where too many wait."""
        try:
            self._queue.put_nowait(sample)
        except asyncio.QueueFull:
            self.metrics.refused += 1
            raise HTTPException(503, "too many requests are waiting", {"Retry-After": "1"}) from None


def load_network() -> pylrp.Network:
    """Return the network that PYLRP_MODEL names, else the bundled one."""
    path = os.environ.get("PYLRP_MODEL")
    if path is None:
        W, b = load_demo_network()
        return pylrp.Network([Dense(W[0], b[0]), ReLU(), Dense(W[1], b[1])])
    return pylrp.load(path, mapped=True) if path.endswith(".pylrp.npz") else pylrp.load(path)


def sample_of(request: Request, batches: Batches) -> np.ndarray[Any, Any]:
    """Return the sample in a request, or raise 422 with what is wrong."""
    try:
        if isinstance(request.x, str):
            x = np.frombuffer(base64.b64decode(request.x, validate=True), np.float32).reshape(request.shape or -1)
        else:
            x = np.asarray(request.x, dtype=np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise HTTPException(422, f"x can't be read as numbers: {error}") from None
    if x.shape != batches.shape:
        raise HTTPException(422, f"x has shape {list(x.shape)}, the network takes {list(batches.shape)}")
    with np.errstate(over="ignore"):  # looked for below
        x = x.astype(batches.network.dtype)
    if not np.isfinite(x).all():
        raise HTTPException(422, f"x holds NaN, or what is infinite as {batches.network.dtype}")
    classes = batches.network.output_size
    if request.target is not None and not 0 <= request.target < classes:
        raise HTTPException(422, f"target is {request.target}, the network has classes 0 to {classes - 1}")
    return x


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the network before the first request, and explain until the end."""
    app.state.batches = batches = Batches(load_network())
    worker = asyncio.create_task(batches.run())
    yield
    worker.cancel()


class Limited:
    """Refuses bodies that are longer than any sample written as text, before they are read."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand a request on, counting its bytes."""
        taken = 0

        async def counted() -> Any:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            most = (1 << 20) + 64 * int(np.prod(app.state.batches.shape))  # of each number, and what is wrong
            if taken > most:
                raise HTTPException(413, f"a sample as JSON takes at most {most} bytes")
            return message

        await self.app(scope, counted if scope["type"] == "http" else receive, send)


app = FastAPI(title="pylrp", lifespan=lifespan)
app.add_middleware(Limited)


@app.post("/explain")
async def explain(request: Request) -> dict[str, Any]:
    """Return class, output and relevance of one sample."""
    batches: Batches = app.state.batches
    batches.metrics.requests += 1
    x = sample_of(request, batches)
    waiting = Waiting(x, -1 if request.target is None else request.target, asyncio.get_running_loop().create_future())
    batches.put(waiting)
    try:
        found: dict[str, Any] = await waiting.answer
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    return found


@app.get("/health")
async def health() -> dict[str, bool]:
    """Say whether the network is loaded and warm."""
    if not app.state.batches.warm:
        raise HTTPException(503, "warming up")
    return {"warm": True}


@app.get("/metrics")
async def metrics() -> Response:
    """Return counters for Prometheus."""
    return Response(app.state.batches.metrics.text(), media_type="text/plain")


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=8000)
