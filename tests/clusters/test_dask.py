"""Dask arrays: lazy results with the bits of Network.explain on the same blocks, on every scheduler, workers killed."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import pylrp
from pylrp.dask import worker
from pylrp.layers import Conv, Dense, Flatten, ReLU

dask = pytest.importorskip("dask", reason='pip install ".[dask]"')
da = pytest.importorskip("dask.array")

CHUNK, COUNT = 12, 50


def network(seed=0):
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((30, 20), (3, 30))]
    return pylrp.Network([Dense(weights[0]), ReLU(), Dense(weights[1])])


def samples(*shape):
    return np.random.default_rng(1).normal(size=(COUNT, *(shape or (20,)))).astype(np.float32)


def expected(net, x, **options):
    """What explain() returns of each block."""
    found = []
    for i in range(0, COUNT, CHUNK):
        own = {k: v[i : i + CHUNK] if k == "target" and np.ndim(v) else v for k, v in options.items()}
        found.append(worker.results(net.explain(x[i : i + CHUNK], **own)))
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def assert_same(ex, wanted, **how):
    names = ("relevance", "output", "target", "ledger")
    lazy = [getattr(ex, name) for name in names]
    for name, array, got in zip(names, lazy, dask.compute(*lazy, **how), strict=True):
        assert got.tobytes() == wanted[name].tobytes(), name
        assert (got.shape, got.dtype) == (array.shape, array.dtype) == (wanted[name].shape, wanted[name].dtype)
        assert array.chunks[0] == (12, 12, 12, 12, 2)
        assert type(array._meta) is np.ndarray
        assert array._meta.dtype == got.dtype


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(worker.tempfile, "gettempdir", lambda: str(tmp_path))


@pytest.mark.parametrize("scheduler", ["sync", "threads", pytest.param("processes", marks=pytest.mark.slow)])
@pytest.mark.parametrize("options", [{}, {"targets": [0, 2]}, {"target": 1, "composite": "epsilon_plus"}], ids=str)
def test_bits_of_explain_on_every_scheduler(scheduler, options):
    net, x = network(), samples()
    ex = pylrp.dask.explain(net, da.from_array(x, chunks=(CHUNK, 20)), **options)
    assert_same(ex, expected(net, x, **options), scheduler=scheduler)
    assert ex.ledger_layers == net.explain(x[:1]).ledger.names


def test_targets_one_a_sample_and_images():
    net, x = network(), samples()
    array, target = da.from_array(x, chunks=(CHUNK, 20)), np.arange(COUNT) % 3
    wanted = expected(net, x, target=target)
    assert_same(pylrp.dask.explain(net, array, target), wanted, scheduler="sync")
    assert_same(pylrp.dask.explain(net, array, da.from_array(target, chunks=7)), wanted, scheduler="sync")
    rng = np.random.default_rng(0)
    conv = Conv(rng.normal(size=(4, 2, 3, 3)).astype(np.float32))
    head = Dense(rng.normal(size=(3, 36)).astype(np.float32))
    net, x = pylrp.Network([conv, ReLU(), Flatten(), head], input_shape=(2, 5, 5)), samples(2, 5, 5)
    ex = pylrp.dask.explain(net, da.from_array(x, chunks=(CHUNK, 2, 5, 5)))
    assert_same(ex, expected(net, x), scheduler="sync")


def test_unknown_numbers_of_samples():
    net, x = network(), samples()
    array = da.from_array(x, chunks=(CHUNK, 20))
    chosen = array[array[:, 0] > 0]
    assert np.isnan(chosen.shape[0])
    ex = pylrp.dask.explain(net, chosen)
    np.testing.assert_allclose(
        ex.relevance.compute(scheduler="sync"), net.explain(x[x[:, 0] > 0]).relevance, rtol=1e-5, atol=1e-6
    )


def test_nothing_is_computed_before_it_is_asked_for():
    net, read = network(), []

    def block(x):
        read.append(len(x))
        return x

    array = da.from_array(samples(), chunks=(CHUNK, 20)).map_blocks(
        block, dtype=np.float32, meta=np.empty((0, 0), "f4")
    )
    ex = pylrp.dask.explain(net, array)
    assert read == []
    ex.relevance[:5].compute(scheduler="sync")
    assert read == [CHUNK]


def test_what_does_not_fit_is_refused():
    net, x = network(), samples()
    with pytest.raises(ValueError, match="rechunk"):
        pylrp.dask.explain(net, da.from_array(x, chunks=(CHUNK, 10)))
    with pytest.raises(ValueError, match="takes"):
        pylrp.dask.explain(net, da.from_array(x[:, :19], chunks=(CHUNK, 19)))
    with pytest.raises(TypeError, match="from_array"):
        pylrp.dask.explain(net, x)
    with pytest.raises(ValueError, match="entries"):
        pylrp.dask.explain(net, da.from_array(x, chunks=(CHUNK, 20)), np.zeros(3, int))
    with pytest.raises(ValueError, match="class"):
        pylrp.dask.explain(net, da.from_array(x, chunks=(CHUNK, 20)), 7)


def test_the_network_is_loaded_once_in_a_process(monkeypatch):
    net, x = network(), samples()
    for by_file in (True, False):
        carried = pickle.dumps(worker.Explainer(net, by_file=by_file))
        assert (len(carried) < 1000) == by_file
        worker._networks.clear()
        first, second = pickle.loads(carried), pickle.loads(carried)
        assert first(x[:3])["relevance"].tobytes() == net.explain(x[:3]).relevance.tobytes()
        assert second.network() is first.network()
        assert second.network() is not net
    others = [worker.Explainer(network(seed)) for seed in range(1, 8)]
    assert len(worker._networks) == worker._KEPT
    for other in others:
        other(x[:1])


def test_what_no_file_holds_is_pickled(tmp_path):
    sklearn = pytest.importorskip("sklearn.pipeline")
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression

    x = samples().astype(np.float64)
    x[::5, 3] = np.nan
    pipeline = sklearn.make_pipeline(SimpleImputer(), LogisticRegression()).fit(x, x[:, 0] > 0)
    net = pylrp.load(pipeline)
    ex = pylrp.dask.explain(net, da.from_array(x, chunks=(CHUNK, 20)))
    np.testing.assert_allclose(ex.relevance.compute(scheduler="sync"), net.explain(x).relevance)
    worker._networks.clear()
    again = pickle.loads(pickle.dumps(worker.Explainer(net)))
    worker._networks.clear()
    np.testing.assert_allclose(again(x)["relevance"], net.explain(x).relevance)
    (file,) = next(tmp_path.glob("pylrp-*")).glob("*.pickle")
    file.unlink()
    worker._networks.clear()
    with pytest.raises(FileNotFoundError, match="by_file"):
        again(x)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's memory")
@pytest.mark.parametrize(("setting", "few"), [("65536", True), ("65537", False)])
def test_a_worker_keeps_its_pages(tmp_path, setting, few):
    """With the setting of Dask's workers a block would fetch its memory anew; one that is a user's own stays."""
    script = tmp_path / "pages.py"
    script.write_text(
        "import pickle, resource, sys, numpy as np\n"
        "explainer = pickle.loads(sys.stdin.buffer.read())\n"
        "x = np.ones((512, 3000), np.float32)\n"
        "explainer(x), explainer(x)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "explainer(x)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    net = pylrp.Network([Dense(np.ones((3, 3000), np.float32))])
    done = subprocess.run(
        [sys.executable, str(script)],
        input=pickle.dumps(worker.Explainer(net, folder=tmp_path / "network", composite="epsilon", threads=1)),
        capture_output=True,
        env={**os.environ, "MALLOC_TRIM_THRESHOLD_": setting},
        cwd=tmp_path,
        check=True,
    )
    assert (int(done.stdout) < 200) == few


def waits(block, folder=None, only=None):
    """Say which process has this block, and go on when told; runs in a worker."""
    place = Path(folder)
    (place / f"{os.getpid()}.began").touch()
    end = time.monotonic() + 60
    while not (place / "go").exists() and time.monotonic() < end:
        time.sleep(0.02)
    return block


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.filterwarnings("ignore")  # distributed's own, of the worker that is gone
def test_a_worker_killed_in_the_middle_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where workers start: not among the sources, whose pylrp has no core
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2])])  # workers import this file
    distributed = pytest.importorskip("distributed")
    net, x = network(), samples()
    with (
        dask.config.set({"distributed.scheduler.worker-ttl": None}),
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        array = da.from_array(x, chunks=(CHUNK, 20)).map_blocks(waits, folder=str(tmp_path), dtype=x.dtype, meta=x[:0])
        ex = pylrp.dask.explain(net, array)
        futures = client.compute([ex.relevance, ex.ledger])
        end = time.monotonic() + 60
        while len(began := list(tmp_path.glob("*.began"))) < 3:
            assert time.monotonic() < end
            time.sleep(0.02)
        os.kill(int(began[0].stem), signal.SIGKILL)
        (tmp_path / "go").touch()
        relevance, ledger = client.gather(futures)
        wanted = expected(net, x)
        assert relevance.tobytes() == wanted["relevance"].tobytes()
        assert ledger.tobytes() == wanted["ledger"].tobytes()
        pids = set(client.run(os.getpid).values())
        assert int(began[0].stem) not in pids
        assert set(client.run(threads).values()) == {1}


def threads():
    return worker.threads_of_a_task()
