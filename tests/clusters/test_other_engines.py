"""The callable of Dask's workers elsewhere: without Dask, in Ray Data's map_batches, in Spark's pandas functions.

Ray and Spark are tried at night, where they are installed: ``pip install ray pyspark``, Spark with a Java.
"""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import pylrp
from pylrp.dask import Explainer
from pylrp.dask.worker import threads_of_a_task
from pylrp.info import get_threads
from pylrp.layers import Dense, ReLU

COUNT = 64


def network():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((30, 20), (3, 30))]
    return pylrp.Network([Dense(weights[0]), ReLU(), Dense(weights[1])])


def samples():
    return np.random.default_rng(1).normal(size=(COUNT, 20)).astype(np.float32)


def assert_close(found, net, x):
    np.testing.assert_allclose(np.stack(found), net.explain(x, target=1).relevance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dask", [None, "not imported"])
def test_a_thread_without_dask_has_the_process(monkeypatch, tmp_path, dask):
    """Dask is not installed (None), or nobody has imported it: no error, and all threads of the process."""
    for name in ("dask", "distributed"):
        if dask is None:
            monkeypatch.setitem(sys.modules, name, None)
        else:
            monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "distributed", None)
    net, x = network(), samples()
    explainer = Explainer(net, target=1, folder=tmp_path)
    with ThreadPoolExecutor(1) as pool:
        assert_close(pool.submit(explainer, x).result()["relevance"], net, x)
        assert pool.submit(threads_of_a_task).result() == get_threads()


@pytest.mark.nightly
@pytest.mark.serial
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_ray(monkeypatch):
    ray = pytest.importorskip("ray", reason="pip install ray")
    data = pytest.importorskip("ray.data", reason="pip install ray[data]")
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))  # the workers find pylrp where this process does
    net, x = network(), samples()
    explainer = Explainer(net, by_file=False, target=1)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        rows = data.from_numpy(x).map_batches(
            lambda batch: {"x": batch["data"], "relevance": explainer(batch["data"])["relevance"]}, batch_size=16
        )
        made = rows.take_all()
    finally:
        ray.shutdown()
    assert len(made) == COUNT
    order = np.stack([row["x"] for row in made])
    assert_close([row["relevance"] for row in made], net, order)
    np.testing.assert_array_equal(np.sort(order[:, 0]), np.sort(x[:, 0]))


@pytest.mark.nightly
@pytest.mark.serial
@pytest.mark.filterwarnings("ignore")  # of Spark's own
def test_spark(monkeypatch):
    pd = pytest.importorskip("pandas")
    sql = pytest.importorskip("pyspark.sql", reason="pip install pyspark")
    if shutil.which("java") is None:
        pytest.skip("Spark needs a Java")
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    net, x = network(), samples()
    explainer = Explainer(net, by_file=False, target=1)

    def relevance(rows):
        found = explainer(np.stack(rows).astype(np.float32))["relevance"]
        return pd.Series([row.tolist() for row in found])

    # Spark reads a function's kind from these; under "from __future__ import annotations" they would be texts.
    relevance.__annotations__ = {"rows": pd.Series, "return": pd.Series}
    session = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        frame = session.createDataFrame([(i, row.tolist()) for i, row in enumerate(x)], "number int, x array<float>")
        explained = sql.functions.pandas_udf(relevance, "array<float>")
        made = frame.select("number", explained("x").alias("relevance")).orderBy("number").collect()
    finally:
        session.stop()
    assert [row["number"] for row in made] == list(range(COUNT))
    assert_close([row["relevance"] for row in made], net, x)
