"""Streams: rows equal those of Network.explain on the same batches, from every source, into every sink."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp.layers import Concat, Conv, Dense, Flatten, ReLU
from pylrp.network.graph import Graph, Node
from pylrp.network.identity import fingerprint
from pylrp.stream import BadRecord, ClassMeans, DifferentRun, FlippingCurves, LedgerSum, StreamResult, TopFeatures

COUNT, BATCH = 23, 4
SINKS = ("npy", "zarr", "parquet")
PACKAGES = {"zarr": "zarr", "parquet": "pyarrow", "h5": "h5py"}


def need(ending: str) -> None:
    if ending in PACKAGES:
        pytest.importorskip(PACKAGES[ending], reason='pip install ".[stream]"')


def dense(seed: int = 0, features: int = 9) -> pylrp.Network:
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((12, features), (4, 12))]
    return pylrp.Network([Dense(weights[0]), ReLU(), Dense(weights[1])])


def samples(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(COUNT, *(shape or (9,)))).astype(np.float32)


def expected(net: pylrp.Network, x, **options) -> dict[str, np.ndarray]:
    """What Network.explain returns of each batch of the grid."""
    parts = [net.explain(x[i : i + BATCH], **options) for i in range(0, COUNT, BATCH)]
    return {
        "relevance": np.concatenate([ex.relevance for ex in parts]),
        "output": np.concatenate([ex.output for ex in parts]),
        "target": np.concatenate([ex.target for ex in parts]),
        "ledger": np.concatenate([ex.ledger.data.transpose(2, 0, 1) for ex in parts]),
    }


def assert_same(result: StreamResult, wanted: dict[str, np.ndarray]) -> None:
    assert result.complete
    assert result.count == COUNT
    found = result.arrays()
    for name, array in wanted.items():
        got = np.asarray(found[name][:])
        assert got.dtype == array.dtype
        assert got.shape == array.shape
        assert got.tobytes() == array.tobytes(), name


@pytest.mark.parametrize("ending", SINKS)
def test_rows_are_those_of_explain(tmp_path, ending):
    need(ending)
    net, x = dense(), samples()
    target = np.arange(COUNT) % 4
    result = pylrp.stream.explain(
        net, x, tmp_path / f"a.{ending}", batch=BATCH, target=target, composite="epsilon_plus"
    )
    wanted = {
        name: np.concatenate(
            [
                {"relevance": ex.relevance, "output": ex.output, "ledger": ex.ledger.data.transpose(2, 0, 1)}[name]
                for ex in (
                    net.explain(x[i : i + BATCH], target[i : i + BATCH], "epsilon_plus") for i in range(0, COUNT, BATCH)
                )
            ]
        )
        for name in ("relevance", "output", "ledger")
    }
    assert_same(result, {**wanted, "target": target})
    assert result.run["ledger_layers"] == list(net.explain(x[:1]).ledger.names)
    again = StreamResult.open(tmp_path / f"a.{ending}")
    assert_same(again, wanted)


@pytest.mark.parametrize("ending", SINKS)
def test_images_channels_and_several_targets(tmp_path, ending):
    need(ending)
    rng = np.random.default_rng(0)
    conv = Conv(rng.normal(size=(4, 2, 3, 3)).astype(np.float32))
    head = Dense(rng.normal(size=(3, 4 * 3 * 3)).astype(np.float32))
    net = pylrp.Network([conv, ReLU(), Flatten(), head], input_shape=(2, 5, 5))
    x = samples(2, 5, 5)
    result = pylrp.stream.explain(net, x, tmp_path / f"a.{ending}", batch=BATCH, targets=[0, 2])
    parts = [net.explain(x[i : i + BATCH], targets=[0, 2]) for i in range(0, COUNT, BATCH)]
    ledgers = [np.stack([one.data.transpose(2, 0, 1) for one in ex.ledger], axis=1) for ex in parts]
    wanted = {"relevance": np.concatenate([ex.relevance for ex in parts]), "ledger": np.concatenate(ledgers)}
    assert_same(result, wanted)


def write_source(kind: str, x: np.ndarray, folder: Path):
    """The samples in a file of this kind, or as such an object."""
    names = [f"f{i}" for i in range(x.shape[1])]
    path = folder / f"x.{kind}"
    if kind == "npy":
        np.save(path, x)
    elif kind == "h5":
        import h5py

        with h5py.File(path, "w") as file:
            file["x"] = x
    elif kind == "zarr":
        import zarr

        zarr.create_array(str(path), data=x, chunks=(3, 9))
    elif kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({n: x[:, i] for i, n in enumerate(names)}), path, row_group_size=7)
    elif kind.startswith("parquet of"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = folder / "parts"
        path.mkdir()
        for i in (0, 10, 20):
            rows: Any = list(x[i : i + 10])
            if kind == "parquet of fixed lists":
                rows = pa.FixedSizeListArray.from_arrays(pa.array(x[i : i + 10].ravel()), x.shape[1])
            elif kind == "parquet of lists of lists":
                rows = pa.array(x[i : i + 10].reshape(-1, 3, 3).tolist(), pa.list_(pa.list_(pa.float32())))
            pq.write_table(pa.table({"x": rows}), path / f"part-{i:02}.parquet")
    elif kind == "iterator":
        return (row for row in x)
    elif kind == "pandas":
        return pytest.importorskip("pandas").DataFrame(x, columns=names)
    elif kind == "polars":
        return pytest.importorskip("polars").DataFrame({n: x[:, i] for i, n in enumerate(names)})
    return path


PARQUETS = ["parquet", "parquet of lists", "parquet of fixed lists", "parquet of lists of lists"]


@pytest.mark.parametrize("kind", ["npy", "h5", "zarr", *PARQUETS, "iterator", "pandas", "polars"])
def test_every_source(tmp_path, kind):
    need(kind.split()[0])
    net, x = dense(), samples()
    source = write_source(kind, x, tmp_path)
    result = (
        pylrp.stream.explain(net, source, tmp_path / ("a.npy" if kind != "iterator" else "a.zarr"), batch=BATCH)
        if (kind != "iterator" or pytest.importorskip("zarr"))
        else None
    )
    wanted = expected(net, x)
    assert result is not None
    found = result.arrays()
    np.testing.assert_array_equal(found["target"][:], wanted["target"])
    assert found["relevance"][:].tobytes() == wanted["relevance"].tobytes()


def test_lists_of_another_length_are_bad_records(tmp_path):
    pa = pytest.importorskip("pyarrow")
    net, x = dense(), samples()
    rows = [*map(list, x)]
    rows[4], rows[7] = rows[4][:5], None
    pytest.importorskip("pyarrow.parquet").write_table(pa.table({"x": rows}), tmp_path / "x.parquet")
    result = pylrp.stream.explain(net, tmp_path / "x.parquet", tmp_path / "a.npy", batch=BATCH, on_error="skip")
    assert [index for index, *_ in result.skipped] == [4, 7]
    rest = np.delete(np.arange(len(x)), [4, 7])
    np.testing.assert_allclose(result.arrays()["relevance"][rest], net.explain(x[rest]).relevance, rtol=1e-4, atol=1e-6)


def test_relevance_in_parquet_is_a_source(tmp_path):
    """Maps that a stream has written, images in lists of one length, are read in the network's shape."""
    pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    net = pylrp.Network([Flatten(), Dense(rng.normal(size=(3, 18)).astype(np.float32))], input_shape=(2, 3, 3))
    x = rng.normal(size=(7, 2, 3, 3)).astype(np.float32)
    pylrp.stream.explain(net, x, tmp_path / "maps.parquet", batch=4, target=0)
    again = pylrp.stream.explain(net, tmp_path / "maps.parquet", tmp_path / "a.npy", batch=4, columns=["relevance"])
    wanted = net.explain(net.explain(x, target=0).relevance).relevance
    np.testing.assert_allclose(again.arrays()["relevance"], wanted, rtol=1e-4, atol=1e-6)


def test_folder_of_images(tmp_path):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 8, 8), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for i, one in enumerate(pixels):
        image.fromarray(one).save(tmp_path / "photos" / f"{i}.png")
    (tmp_path / "photos" / "3b.png").write_bytes(b"no image")
    head = Dense(rng.normal(size=(3, 64)).astype(np.float32))
    net = pylrp.Network([Flatten(), head], input_shape=(1, 8, 8))
    with pytest.raises(BadRecord) as raised:
        pylrp.stream.explain(net, tmp_path / "photos", tmp_path / "a.npy", batch=2)
    assert (raised.value.index, Path(raised.value.name).name) == (4, "3b.png")
    result = pylrp.stream.explain(net, tmp_path / "photos", tmp_path / "a.npy", batch=2, on_error="skip")  # goes on
    assert [index for index, *_ in result.skipped] == [4]
    rows = [0, 1, 2, 3, 5, 6]
    relevance = result.arrays()["relevance"]
    assert np.isnan(relevance[4]).all()
    np.testing.assert_allclose(
        relevance[rows], net.explain(pixels[:, None].astype(np.float32) / 255).relevance, rtol=1e-5, atol=1e-6
    )


def test_several_inputs(tmp_path):
    rng = np.random.default_rng(0)
    nodes = [
        Node("both", Concat(), ("a", "b")),
        Node("out", Dense(rng.normal(size=(3, 5)).astype(np.float32)), ("both",)),
    ]
    net = pylrp.Network.from_graph(Graph({"a": (2,), "b": (3,)}, nodes, ["out"]))
    x = {"a": samples(2), "b": samples(3)}
    result = pylrp.stream.explain(net, x, tmp_path / "a.npy", batch=BATCH)
    ex = net.explain(x)
    for name in ("a", "b"):
        np.testing.assert_allclose(result.arrays()[f"relevance.{name}"], ex.relevance[name], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="numbers of samples"):
        pylrp.stream.explain(net, {"a": x["a"], "b": x["b"][:3]}, tmp_path / "b.npy")


def test_reductions(tmp_path):
    net, x = dense(), samples()
    means, top, ledger, curves = ClassMeans(), TopFeatures(3), LedgerSum(), FlippingCurves(4, replacement=0.0)
    result = pylrp.stream.explain(
        net, x, tmp_path / "a.npy", batch=BATCH, keep=["target"], reductions=[means, top, ledger, curves]
    )
    assert set(result.arrays()) == {"target"}
    ex = net.explain(x)
    for index in np.unique(ex.target):
        np.testing.assert_allclose(
            result.reductions["class_means"][index], ex.relevance[ex.target == index].mean(0), rtol=1e-5
        )
    assert sum(means.counts.values()) == COUNT
    sizes = np.abs(ex.relevance)
    order = np.argsort(-sizes.mean(0))[:3]
    assert [row["feature"] for row in result.reductions["top_features"]] == order.tolist()
    first = np.argsort(-sizes, axis=1)[:, :3]
    for row in result.reductions["top_features"]:
        np.testing.assert_allclose(row["mean"], ex.relevance[:, row["feature"]].mean(), rtol=1e-4)
        assert row["share"] == pytest.approx((first == row["feature"]).any(axis=1).mean())
    np.testing.assert_allclose(result.reductions["ledger"].data[:, :, 0], ex.ledger.data.sum(2), rtol=1e-4, atol=1e-5)
    flipped = pylrp.evaluate.pixel_flipping(
        net, x, ex.relevance, target=ex.target, steps=4, replacement=0.0, order=["most", "least"]
    )
    for name in ("most", "least"):
        np.testing.assert_allclose(
            result.reductions["curves"]["mean"][name], flipped.scores[name].mean(0), rtol=1e-4, atol=1e-5
        )
        error = flipped.scores[name].std(0, ddof=1) / np.sqrt(COUNT)
        np.testing.assert_allclose(result.reductions["curves"]["standard_error"][name], error, rtol=1e-3, atol=1e-5)


def test_complete_is_not_done_again_and_progress(tmp_path):
    net, x, told = dense(), samples(), []
    pylrp.stream.explain(
        net, x, tmp_path / "a.npy", batch=BATCH, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(done, COUNT) for done in (0, 4, 8, 12, 16, 20, 23)]
    told.clear()
    stamp = (tmp_path / "a.npy").stat().st_mtime_ns
    result = pylrp.stream.explain(net, x, tmp_path / "a.npy", batch=BATCH, progress=lambda *given: told.append(given))
    assert not told
    assert result.complete
    assert (tmp_path / "a.npy").stat().st_mtime_ns == stamp
    pylrp.stream.explain(net, x, tmp_path / "a.npy", batch=5, resume=False)
    assert StreamResult.open(tmp_path / "a.npy").run["batch"] == 5


def test_another_run_is_refused(tmp_path):
    net, x = dense(), samples()
    sink = tmp_path / "a.npy"
    pylrp.stream.explain(net, x, sink, batch=BATCH)
    other = x.copy()
    other[0, 0] += 1
    for what, arguments, options in (
        ("batch", (net, x), {"batch": 5}),
        ("network", (dense(1), x), {"batch": BATCH}),
        ("content", (net, other), {"batch": BATCH}),
        ("shape", (net, x[:-1]), {"batch": BATCH}),
        ("composite", (net, x), {"batch": BATCH, "composite": "epsilon_plus"}),
        ("settings", (net, x), {"batch": BATCH, "target": 1}),
        ("targets", (net, x), {"batch": BATCH, "target": np.zeros(COUNT, int)}),
        ("settings", (net, x), {"batch": BATCH, "start": "one"}),
        ("reductions", (net, x), {"batch": BATCH, "reductions": [LedgerSum()]}),
        ("prepare", (net, x), {"batch": BATCH, "prepare": lambda x: x * 2}),
        ("rules", (net, x), {"batch": BATCH, "rules": pylrp.Epsilon(0.1)}),
    ):
        with pytest.raises(DifferentRun) as raised:
            pylrp.stream.explain(*arguments, sink, **options)
        assert what in raised.value.differences


def test_what_is_no_stream_is_left_alone(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        pylrp.stream.explain(dense(), samples(), tmp_path / "a.npy", resume=False)
    assert (tmp_path / "a.npy").read_bytes() == b"mine"
    with pytest.raises(FileNotFoundError):
        StreamResult.open(tmp_path / "b.npy")
    for wrong in (
        {"batch": 0},
        {"memory": 10},
        {"memory": "ten"},
        {"keep": ["maps"]},
        {"on_error": "no"},
        {"batch": 4, "memory": 999},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            pylrp.stream.explain(dense(), samples(), tmp_path / "b.npy", **wrong)
    with pytest.raises(ValueError, match="parquet"):
        pylrp.stream.explain(dense(), samples(), tmp_path / "b.csv")
    with pytest.raises(TypeError):
        pylrp.stream.explain(dense(), 5, tmp_path / "b.npy")


def test_an_iterator_is_not_gone_on_with(tmp_path):
    pytest.importorskip("zarr")
    net, x = dense(), samples()

    def breaks():
        yield from x[:10]
        raise OSError("the line is dead")

    with pytest.raises(OSError, match="line"):
        pylrp.stream.explain(net, breaks(), tmp_path / "a.zarr", batch=BATCH)
    assert StreamResult.open(tmp_path / "a.zarr").count == 8
    with pytest.raises(ValueError, match="resume=False"):
        pylrp.stream.explain(net, iter(x), tmp_path / "a.zarr", batch=BATCH)
    assert_same(pylrp.stream.explain(net, iter(x), tmp_path / "a.zarr", batch=BATCH, resume=False), expected(net, x))
    with pytest.raises(ValueError, match="zarr"):
        pylrp.stream.explain(net, iter(x), tmp_path / "a.npy", batch=BATCH)


def test_one_process_at_a_time(tmp_path):
    net, x, entered, leave = dense(), samples(), threading.Event(), threading.Event()

    def slow(block):
        entered.set()
        assert leave.wait(60)
        return block

    first = threading.Thread(target=lambda: pylrp.stream.explain(net, x, tmp_path / "a.npy", prepare=slow))
    first.start()
    assert entered.wait(60)
    with pytest.raises(BlockingIOError):
        pylrp.stream.explain(net, x, tmp_path / "a.npy")
    leave.set()
    first.join()
    assert StreamResult.open(tmp_path / "a.npy").complete


def test_bad_samples(tmp_path):
    net, x = dense(), samples()
    x[0, 1], x[9, 3] = np.nan, np.inf
    x[13] = 3e38  # finite, but not what comes of it
    with pytest.raises(BadRecord) as raised:
        pylrp.stream.explain(net, x, tmp_path / "a.npy", batch=BATCH)
    assert raised.value.index == 0
    result = pylrp.stream.explain(net, x, tmp_path / "b.npy", batch=BATCH, on_error="skip")
    assert [index for index, *_ in result.skipped] == [0, 9, 13]
    good = np.setdiff1d(np.arange(COUNT), [0, 9, 13])
    found = result.arrays()
    assert np.isnan(found["relevance"][[0, 9, 13]]).all()
    assert found["target"][[0, 9, 13]].tolist() == [-1, -1, -1]
    np.testing.assert_allclose(found["relevance"][good], net.explain(x[good]).relevance, rtol=1e-5, atol=1e-6)


def test_bad_from_the_beginning(tmp_path):
    net, x = dense(), samples()
    x[: 2 * BATCH] = np.nan
    result = pylrp.stream.explain(net, x, tmp_path / "a.npy", batch=BATCH, on_error="skip")
    assert len(result.skipped) == 2 * BATCH
    assert np.isfinite(result.arrays()["relevance"][2 * BATCH :]).all()
    x[:] = np.nan
    with pytest.raises(BadRecord):
        pylrp.stream.explain(net, x, tmp_path / "b.npy", batch=BATCH, on_error="skip")
    with pytest.raises(ValueError, match="takes"):  # no sample's fault: it is the caller's
        pylrp.stream.explain(net, samples(8), tmp_path / "c.npy", batch=BATCH, on_error="skip")


def test_whole_numbers_and_preparation(tmp_path):
    net = dense()
    x = np.random.default_rng(0).integers(0, 256, (COUNT, 9), dtype=np.uint8)
    result = pylrp.stream.explain(net, x, tmp_path / "a.npy", batch=BATCH, prepare=lambda rows: rows.astype("f4") / 255)
    assert_same(result, expected(net, x.astype(np.float32) / 255))
    result = pylrp.stream.explain(net, x, tmp_path / "b.npy", batch=BATCH)
    assert_same(result, expected(net, x.astype(np.float32)))


def test_batch_from_memory(tmp_path):
    net, x = dense(), samples()
    small = pylrp.stream.explain(net, x, tmp_path / "a.npy", memory="2 kB").run["batch"]
    large = pylrp.stream.explain(net, x, tmp_path / "b.npy", memory="1 GiB").run["batch"]
    assert 1 <= small < 10
    assert large == 4096


def test_fingerprint():
    """The same for a network that was pickled, another one for every change of a number or a name."""
    import pickle

    net = dense()
    assert fingerprint(pickle.loads(pickle.dumps(net)).graph) == fingerprint(net.graph) == fingerprint(dense().graph)
    others = [fingerprint(dense(1).graph), fingerprint(dense(0, 8).graph)]
    weight = np.eye(3, dtype=np.float32)
    plain = [Dense(weight), ReLU(), Dense(weight)]
    for layers in (
        plain,
        [Dense(weight), Dense(weight)],
        [Dense(weight, np.zeros(3, np.float32)), ReLU(), Dense(weight)],
    ):
        others.append(fingerprint(pylrp.Network(layers).graph))
    one = weight.copy()
    one[1, 1] = np.nextafter(np.float32(1), np.float32(2))
    others.append(fingerprint(pylrp.Network([Dense(one), ReLU(), Dense(weight)]).graph))
    assert len({*others, fingerprint(net.graph)}) == len(others) + 1


def test_command_line(tmp_path, monkeypatch, capsys):
    from pylrp.cli import main

    monkeypatch.chdir(tmp_path)
    net, x = dense(), samples()
    net.save("net.pylrp.npz")
    x[5, 2] = np.nan
    np.save("x.npy", x)
    command = [
        "explain",
        "net.pylrp.npz",
        "x.npy",
        "--stream",
        "-o",
        "maps.npy",
        "--batch",
        str(BATCH),
        "--target",
        "1",
    ]
    assert main(command) == 1
    told = capsys.readouterr().err
    assert "sample 5" in told
    assert "--on-error skip" in told
    assert StreamResult.open("maps.npy").count == BATCH
    assert main([*command, "--on-error", "skip"]) == 1
    good = np.delete(np.arange(COUNT), 5)
    found = StreamResult.open("maps.npy").arrays()
    np.testing.assert_allclose(found["relevance"][good], net.explain(x[good], 1).relevance, rtol=1e-5, atol=1e-6)
    assert main([*command, "--on-error", "skip", "--composite", "epsilon_plus"]) == 1
    told = capsys.readouterr().err
    assert "--fresh" in told
    assert "resume=" not in told
    assert main([*command, "--on-error", "skip", "--composite", "epsilon_plus", "--fresh", "-q"]) == 1
    assert StreamResult.open("maps.npy").run["composite"] == "epsilon_plus"
    for wrong in (["-o", "maps.png"], ["-o", "a.npy", "-o", "b.npy"], ["-o", "a.npy", "--layers", "all"]):
        assert main(["explain", "net.pylrp.npz", "x.npy", "--stream", *wrong]) == 1
