"""examples/service.py: it answers as Network.explain does, batches, refuses what is wrong, counts."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from docs.test_docs import load_example

from pylrp.demo import load_demo_digits

pytest.importorskip("fastapi", reason="pip install fastapi httpx")
pytest.importorskip("httpx", reason="pip install fastapi httpx")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the web framework about itself


def test_service(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi.testclient import TestClient

    monkeypatch.delenv("PYLRP_MODEL", raising=False)
    service = load_example("service")
    net = service.load_network()
    images, _ = load_demo_digits()
    x = images.reshape(100, 784).astype(np.float32) / 255
    with TestClient(service.app) as client:
        for _ in range(200):
            if client.get("/health").status_code == 200:
                break
        assert client.get("/health").json() == {"warm": True}

        def ask(i: int) -> dict[str, object]:
            answer = client.post("/explain", json={"x": x[i].tolist(), "target": i % 10 if i % 2 else None})
            assert answer.status_code == 200, answer.text
            found: dict[str, object] = answer.json()
            return found

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(40)))
        for i, found in enumerate(answers):
            ex = net.explain(x[i], i % 10 if i % 2 else None)
            assert found["target"] == int(ex.target[0])
            np.testing.assert_allclose(found["output"], ex.output[ex.target[0]], rtol=1e-5)
            R = np.frombuffer(base64.b64decode(str(found["relevance"])), np.float32)
            np.testing.assert_allclose(R, ex.relevance, rtol=1e-4, atol=1e-5)
            absorbed = sum(float(row.absorbed) for row in ex.ledger)
            np.testing.assert_allclose(found["absorbed"], absorbed, rtol=1e-3, atol=1e-4)
        coded = base64.b64encode(x[0].tobytes()).decode()
        assert client.post("/explain", json={"x": coded, "shape": [784]}).json()["target"] == answers[0]["target"]

        bad = x[0].tolist()
        bad[3] = None
        for wrong in (
            {"x": x[0].tolist()[:-1]},
            {"x": [x[0].tolist()]},
            {"x": x[0].tolist(), "target": 10},
            {"x": bad},
            {"x": "!"},
            {"x": coded, "shape": [7]},
            {"x": coded, "shape": [10**30]},
            {"x": coded, "shape": [-1]},
            {"x": [{"a": 1}] * 784},
            {"x": [10**400] * 784},
            {"x": [1e300] * 784},
            {},
        ):
            assert client.post("/explain", json=wrong).status_code == 422, wrong
        assert client.post("/explain", json={"x": [0.25] * 400_000}).status_code == 413
        counted = dict(line.split() for line in client.get("/metrics").text.splitlines())
        assert int(counted["pylrp_requests_total"]) >= 41
        assert int(counted["pylrp_samples_total"]) == 41
        assert int(counted["pylrp_batches_total"]) <= 41


def test_a_failure_is_answered_and_the_service_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi.testclient import TestClient

    monkeypatch.delenv("PYLRP_MODEL", raising=False)
    service = load_example("service")
    with TestClient(service.app, raise_server_exceptions=False) as client:
        while client.get("/health").status_code != 200:
            pass
        network = service.app.state.batches.network

        def fails(*args: object, **options: object) -> None:
            raise MemoryError

        with monkeypatch.context() as broken:
            broken.setattr(network, "explain", fails)
            assert client.post("/explain", json={"x": [0.5] * 784}).status_code == 500
        assert client.post("/explain", json={"x": [0.5] * 784}).status_code == 200
