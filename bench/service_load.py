"""The service of ``examples/service.py`` under load: beside zennit in it, and what explaining takes of a request.

    python bench/service_load.py                   EfficientNet-Lite0, 20 s each, then the bundled digits
    python bench/service_load.py digits            one of the two
    python bench/service_load.py --seconds 60

Both servers are the same program, with the same batches, limits and answers; one explains by pylrp, the other by zennit
with the same weights. wrk loads them on loopback where it is installed (Debian: apt-get install wrk), else threads of
this program do. Wanted: 5 times the requests a second; for the digits under the same load, explaining takes at most 15
% of what a request takes of the server: the processor's seconds inside net.explain over those of the server, which has
one thread for it then. By the clock a call takes longer: it waits for the interpreter's lock while requests are read.
That, and the same of one request at a time, which has no batch to share a call with, is printed, too. Beside other
programs the processor's time of a request says more than the clock. A server may take minutes until it is warm (zennit
explains a whole batch first): it is waited for. Needs torch, zennit, fastapi, uvicorn and EfficientNet-Lite0's
packages.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import peers

LEAST_TIMES, MOST_SHARE = 5.0, 0.15
PORT, COMPOSITE, CONNECTIONS = 8765, "epsilon_plus_flat", 16
PATIENCE = 1200  # seconds until a server is warm
POST = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = io.open("{body}", "r")
wrk.body = file:read("*a")
"""


class Zennit:
    """EfficientNet-Lite0 explained by zennit, with as much of a Network as the service asks for."""

    dtype, output_size = np.dtype(np.float32), 1000
    graph = SimpleNamespace(inputs=("x",), user_shape=lambda name: (3, 224, 224))

    def __init__(self) -> None:
        import convnets

        self._torch = peers.load("torch")
        model = convnets.network("efficientnet-lite0")
        convnets.zennit_composite(model, COMPOSITE).register(model)
        self._model = model

    def forward(self, x: Any) -> Any:
        """Predict."""
        with self._torch.no_grad():
            return self._model(self._torch.from_numpy(x)).numpy()

    def explain(self, x: Any, target: Any = None, composite: Any = None) -> Any:
        """Return what the service reads of an explanation."""
        torch = self._torch
        image = torch.from_numpy(x).requires_grad_()
        out = self._model(image)
        target = out.detach().numpy().argmax(1) if target is None else target
        rows = np.arange(len(x))
        start = torch.zeros_like(out)
        start[rows, target] = out.detach()[rows, target]
        (relevance,) = torch.autograd.grad(out, image, start)
        absorbed = (start.sum(1) - relevance.sum((1, 2, 3))).numpy()
        ledger = [SimpleNamespace(absorbed=absorbed)]
        return SimpleNamespace(relevance=relevance.numpy(), output=out.detach().numpy(), target=target, ledger=ledger)


def _service() -> Any:
    """Return the module of the example."""
    place = Path(__file__).parents[1] / "examples" / "service.py"
    spec = importlib.util.spec_from_file_location("service", place)
    assert spec is not None
    assert spec.loader is not None
    service = importlib.util.module_from_spec(spec)
    sys.modules["service"] = service  # pydantic looks for its types there
    spec.loader.exec_module(service)
    return service


def serve(who: str, threads: int) -> None:
    """Run the service in this process."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    service = _service()
    if who == "zennit":
        peers.use_threads(threads)
        service.load_network = Zennit
    peers.load("uvicorn").run(service.app, host="127.0.0.1", port=PORT, log_level="warning")


@contextmanager
def server(who: str, threads: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the service in a process, and yield it when it is warm."""
    command = [sys.executable, __file__, "--serve", who, "--threads", str(threads)]
    batch = {"OMP_NUM_THREADS": str(threads), "PYLRP_BATCH": str(CONNECTIONS)}  # more are never waiting
    began = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, **batch, **environment})
    try:
        while not _warm():
            if process.poll() is not None:
                raise SystemExit(f"the server of {who} has ended")
            if time.monotonic() - began > PATIENCE:
                raise SystemExit(f"the server of {who} is not warm after {PATIENCE} s")
            time.sleep(0.5)
        print(f"  {who:6} warm after {time.monotonic() - began:.0f} s", flush=True)
        yield process
    finally:
        process.terminate()
        process.wait()


def ask(method: str, path: str, body: str | None = None) -> tuple[int, str]:
    """Return status and text of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=600)
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def _warm() -> bool:
    try:
        return ask("GET", "/health")[0] == 200
    except OSError:
        return False


def counters() -> dict[str, float]:
    """Return the service's metrics."""
    lines = ask("GET", "/metrics")[1].splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines)}


def load(body: str, seconds: float, connections: int, folder: Path) -> None:
    """Send requests as fast as they are answered, for some seconds."""
    if shutil.which("wrk"):
        (folder / "body.json").write_text(body)
        (folder / "post.lua").write_text(POST.format(body=folder / "body.json"))
        words = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds:g}s",
            "--timeout",
            "120s",
            "-s",
            str(folder / "post.lua"),
        ]
        done = subprocess.run([*words, f"http://127.0.0.1:{PORT}/explain"], capture_output=True, text=True, check=True)
        if found := re.search(r"Non-2xx.*", done.stdout):
            raise SystemExit(found[0])
        return
    until = time.monotonic() + seconds

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=600)
        while time.monotonic() < until:
            connection.request("POST", "/explain", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"status {answer.status}")

    clients = [threading.Thread(target=client) for _ in range(connections)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()


@dataclass(frozen=True)
class Served:
    """What a load has found: requests a second, the processor's seconds of one, explaining by clock and processor."""

    rate: float
    own: float
    explaining: float
    computing: float
    batch: float


def processor(pid: int) -> float:
    """Return the processor's seconds that a process has taken."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def under_load(process: subprocess.Popen[bytes], body: str, seconds: float, connections: int, folder: Path) -> Served:
    """Load a server that is warm."""
    status, text = ask("POST", "/explain", body)
    if status != 200:
        raise SystemExit(text)
    before, clock, own = counters(), time.perf_counter(), processor(process.pid)
    load(body, seconds, connections, folder)
    clock = time.perf_counter() - clock
    after = counters()
    gained = {name: after[name] - before[name] for name in after}
    count = gained["pylrp_samples_total"]
    own = (processor(process.pid) - own) / count
    explaining, computing = (gained[f"pylrp_{name}_seconds_total"] / count for name in ("explaining", "computing"))
    return Served(count / clock, own, explaining, computing, count / gained["pylrp_batches_total"])


def request(shape: tuple[int, ...]) -> str:
    """Return the body of a request for a sample."""
    x = np.random.default_rng(0).random(shape, np.float32)
    return json.dumps({"x": base64.b64encode(x.tobytes()).decode(), "shape": list(shape)})


def beside_zennit(args: argparse.Namespace, folder: Path) -> bool:
    """Print how many requests a second each explains, and return whether we explain enough more."""
    import streams

    environment = {"PYLRP_MODEL": streams.lite0(folder), "PYLRP_COMPOSITE": COMPOSITE}
    body, found = request((3, 224, 224)), {}
    for who in ("pylrp", "zennit"):
        with server(who, args.threads, **environment) as process:
            served = found[who] = under_load(process, body, args.seconds, CONNECTIONS, folder)
        print(f"  {who:6} {served.rate:6.1f} requests/s, processor {served.own * 1e3:6.1f} ms each, ", end="")
        print(f"{served.batch:.1f} a batch", flush=True)
    times, own = found["pylrp"].rate / found["zennit"].rate, found["zennit"].own / found["pylrp"].own
    print(f"service: EfficientNet-Lite0: {times:.1f} times zennit's requests/s, {own:.1f} by the processor; ", end="")
    print(f"wanted {LEAST_TIMES:.0f}: {'reached' if times >= LEAST_TIMES else 'MISSED'}")
    return times >= LEAST_TIMES


def of_a_request(args: argparse.Namespace, folder: Path) -> bool:
    """Print what explaining takes of a request for the digits, and return whether it is little enough."""
    with server("pylrp", 1) as process:
        one = under_load(process, request((784,)), args.seconds / 2, 1, folder)
        many = under_load(process, request((784,)), args.seconds / 2, CONNECTIONS, folder)
    share = many.computing / many.own
    for said, found in ((f"{CONNECTIONS} clients, {many.batch:.1f} a batch", many), ("one at a time", one)):
        print(
            f"service: digits, {said}: {found.rate:.0f} requests/s of {1e3 * found.own:.2f} ms of the processor, ",
            end="",
        )
        print(f"{found.computing / found.own:.0%} explaining; {found.explaining * found.rate:.0%} by the clock")
    print(f"service: digits: wanted {MOST_SHARE:.0%} under load: {'reached' if share <= MOST_SHARE else 'MISSED'}")
    return share <= MOST_SHARE


def main() -> int:
    """Measure; 1 where a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", nargs="?", choices=("lite0", "digits"))
    parser.add_argument("--serve", choices=("pylrp", "zennit"), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.threads)
        return 0
    parts = {"lite0": beside_zennit, "digits": of_a_request}
    with tempfile.TemporaryDirectory() as raw:
        good = [part(args, Path(raw)) for name, part in parts.items() if args.what in (None, name)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
