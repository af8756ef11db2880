"""Recurrent layers from ``.npz`` and MATLAB files, against step equations written here."""

from __future__ import annotations

from typing import Any

import mat_files
import numpy as np
import pytest
import scipy.io

import pylrp
from pylrp.layers import GRU, LSTM, RNN

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
KINDS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def softsign(z: Any) -> Any:
    return z / (1 + np.abs(z))


def hard_sigmoid(z: Any) -> Any:
    return np.clip(0.2 * z + 0.5, 0, 1)


def run(
    kind: str, x: Any, w: Any, u: Any, b: Any, c: Any, *, mode: str = "", h: Any = None, s: Any = None,
    gate: Any = sigmoid, curve: Any = np.tanh, reverse: bool = False,
) -> Any:  # fmt: skip
    """One direction over (steps, features): the state of every step. ``c`` stands beside the state's product."""
    units = u.shape[1]
    h, s = (np.zeros(units) if v is None else v for v in (h, s))
    states = np.zeros((len(x), units))
    for t in range(len(x))[:: -1 if reverse else 1]:
        a, r = np.split(w @ x[t] + b, GATES[kind]), np.split(u @ h + c, GATES[kind])
        if kind == "lstm":
            i, f, o = (gate(a[k] + r[k]) for k in (0, 1, 3))
            s = f * s + i * curve(a[2] + r[2])
            h = o * curve(s)
        elif kind == "gru":
            reset, z = gate(a[0] + r[0]), gate(a[1] + r[1])
            inner = reset * r[2]
            if mode == "before-multiplication":
                inner = u[2 * units :] @ (reset * h) + c[2 * units :]
            h = (1 - z) * curve(a[2] + inner) + z * h
        else:
            h = curve(a[0] + r[0])
        states[t] = h
    return states


def torch_arrays(rng: Any, kind: str, stack: int, both: bool, features: int = 3, units: int = 4) -> dict[str, Any]:
    found, rows = {}, GATES[kind] * units
    for layer in range(stack):
        wide = features if layer == 0 else units * (1 + both)
        for end in ("", "_reverse")[: 1 + both]:
            found[f"weight_ih_l{layer}{end}"] = rng.normal(size=(rows, wide))
            found[f"weight_hh_l{layer}{end}"] = rng.normal(size=(rows, units))
            found[f"bias_ih_l{layer}{end}"] = rng.normal(size=rows)
            found[f"bias_hh_l{layer}{end}"] = rng.normal(size=rows)
    return found


def run_torch(kind: str, arrays: dict[str, Any], x: Any, stack: int, both: bool, **more: Any) -> tuple[Any, Any]:
    """Return the sequence and the last states."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    for layer in range(stack):
        each = [
            run(kind, x, *(arrays[f"{name}_l{layer}{end}"] for name in names),
                reverse=bool(end), **more)
            for end in ("", "_reverse")[: 1 + both]
        ]  # fmt: skip
        x = np.concatenate(each, axis=1)
    return x, np.concatenate([states[0 if at else -1] for at, states in enumerate(each)])


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("stack", [1, 2])
@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("suffix", ["npz", "mat"])
def test_names_of_torch(tmp_path: Any, kind: str, stack: int, both: bool, suffix: str) -> None:
    rng = np.random.default_rng(stack)
    arrays = torch_arrays(rng, kind, stack, both)
    head, bias = rng.normal(size=(2, 4 * (1 + both))), rng.normal(size=2)
    dot = "." if suffix == "npz" else "_"
    entries = {f"rec{dot}{name}": array for name, array in arrays.items()}
    entries |= {f"fc{dot}weight": head, f"fc{dot}bias": bias, "nonlinearity": "relu"}
    path = tmp_path / f"net.{suffix}"
    if suffix == "npz":
        np.savez(path, **entries)
    else:
        scipy.io.savemat(path, entries)
    net = pylrp.load(path)
    assert [type(node.layer) for node in net.graph.nodes[:stack]] == [KINDS[kind]] * stack
    more = {"curve": lambda z: np.maximum(z, 0)} if kind == "rnn" else {}
    for steps in (1, 8, 11):
        x = rng.normal(size=(2, steps, 3)) * 0.3
        expected = np.stack([head @ run_torch(kind, arrays, one, stack, both, **more)[1] + bias for one in x])
        np.testing.assert_allclose(net.forward(x), expected, rtol=1e-9, atol=1e-12)
        assert net.explain(x, target=1).relevance.shape == x.shape


@pytest.mark.parametrize("kind", GATES)
def test_every_step(tmp_path: Any, kind: str) -> None:
    """Dense layers at each step; saved and loaded again, for another length and in float32."""
    rng = np.random.default_rng(3)
    arrays = torch_arrays(rng, kind, 1, both=True)
    W, b = [rng.normal(size=(5, 8)), rng.normal(size=(2, 5))], [rng.normal(size=5), rng.normal(size=2)]
    dense = {"fc1.weight": W[0], "fc1.bias": b[0], "fc2.weight": W[1], "fc2.bias": b[1]}
    np.savez(tmp_path / "net.npz", **arrays, **dense, returns="sequence", activations="tanh")
    net = pylrp.load(tmp_path / "net.npz")
    net.save(tmp_path / "own.pylrp.npz")
    for found in (net, pylrp.load(tmp_path / "own.pylrp.npz"), pylrp.load(tmp_path / "net.npz", dtype=np.float32)):
        for steps in (8, 5):
            x = rng.normal(size=(steps, 3))
            expected = np.tanh(run_torch(kind, arrays, x, 1, True)[0] @ W[0].T + b[0]) @ W[1].T + b[1]
            exact = found.graph.dtype == np.float64
            np.testing.assert_allclose(found.forward(x), expected, atol=1e-12 if exact else 1e-5)
            assert found.explain(x, target=(2, 1)).relevance.shape == (steps, 3)


def test_without_dense_layers_and_bias(tmp_path: Any) -> None:
    rng = np.random.default_rng(4)
    w, u = rng.normal(size=(12, 3)), rng.normal(size=(12, 4))
    np.savez(tmp_path / "net.npz", weight_ih_l0=w, weight_hh_l0=u)
    x = rng.normal(size=(6, 3))
    expected = run("gru", x, w, u, np.zeros(12), np.zeros(12))[-1]
    np.testing.assert_allclose(pylrp.load(tmp_path / "net.npz").forward(x), expected, atol=1e-12)


def test_modules_by_number(tmp_path: Any) -> None:
    rng = np.random.default_rng(5)
    first, second = torch_arrays(rng, "lstm", 1, False), torch_arrays(rng, "gru", 1, False, features=4, units=2)
    entries = {f"rnn{n}.{name}": array for n, part in ((2, second), (1, first)) for name, array in part.items()}
    np.savez(tmp_path / "net.npz", **entries)
    x = rng.normal(size=(6, 3))
    expected = run_torch("gru", second, run_torch("lstm", first, x, 1, False)[0], 1, False)[1]
    np.testing.assert_allclose(pylrp.load(tmp_path / "net.npz").forward(x), expected, atol=1e-12)


W, U = np.ones((12, 3)), np.ones((12, 4))


@pytest.mark.parametrize(
    "entries",
    [
        {"weight_ih_l0": W},
        {"weight_ih_l0": W, "weight_hh_l0": np.ones((12, 5))},
        {"weight_ih_l0": np.ones((8, 3)), "weight_hh_l0": np.ones((8, 4))},
        {"weight_ih_l0": W, "weight_hh_l0": U, "weight_ih_l1": W},
        {"weight_ih_l0": W, "weight_hh_l0": U, "weight_ih_l0_reverse": W},
        {"weight_ih_l0": W, "weight_hh_l0": U, "weight_hr_l0": np.ones((2, 4))},
        {"weight_ih_l0": W, "weight_hh_l0": U, "weight_hr_l0": np.ones((4, 4))},
        {"weight_ih_l0": W, "weight_hh_l0": U, "weight_hr_l0": np.ones(4)},
        {"weight_ih_l0": W, "weight_hh_l0": U, "returns": "first"},
        {"weight_ih_l0": W, "weight_hh_l0": U, "bias_ih_l0": np.ones(5)},
        {"weight_ih_l0": W, "weight_hh_l0": U, "a.weight": np.ones((2, 4)), "b.weight": np.ones((2, 2))},
        {"weight_ih_l0": W, "weight_hh_l0": U, "fc.weight": np.ones((2, 5))},
        {"weight_ih_l0": W, "weight_hh_l0": U, "fc.bias": np.ones(2)},
        {"enc.weight_ih_l0": W, "enc.weight_hh_l0": U, "dec.weight_ih_l0": W, "dec.weight_hh_l0": U},
    ],
)
def test_what_does_not_fit(tmp_path: Any, entries: dict[str, Any]) -> None:
    np.savez(tmp_path / "net.npz", **entries)
    with pytest.raises(ValueError, match=r"net\.npz"):
        pylrp.load(tmp_path / "net.npz")


MODES = ["after-multiplication", "before-multiplication", "recurrent-bias-after-multiplication"]


def matlab_gru(rng: Any, mode: str, features: int = 3, units: int = 4) -> dict[str, Any]:
    rows = 6 * units if mode == MODES[2] else 3 * units
    return {
        "InputWeights": rng.normal(size=(3 * units, features)),
        "RecurrentWeights": rng.normal(size=(3 * units, units)),
        "Bias": rng.normal(size=(rows, 1)),
        "ResetGateMode": mode,
        "OutputMode": "last",
    }


def run_matlab_gru(given: dict[str, Any], x: Any, **more: Any) -> Any:
    bias, rows = given["Bias"][:, 0], len(given["InputWeights"])
    beside = bias[rows:] if len(bias) > rows else np.zeros(rows)
    arrays = given["InputWeights"], given["RecurrentWeights"], bias[:rows], beside
    return run("gru", x, *arrays, mode=given["ResetGateMode"], **more)


@pytest.mark.parametrize("write", [mat_files.write_5, mat_files.write_73])
@pytest.mark.parametrize("mode", MODES)
def test_gru_of_matlab(tmp_path: Any, mode: str, write: Any) -> None:
    rng = np.random.default_rng(6)
    given = matlab_gru(rng, mode)
    fc = {"Weights": rng.normal(size=(2, 4)), "Bias": rng.normal(size=(2, 1))}
    write(tmp_path / "net.mat", {"gru": given, "fc": fc})
    net, x = pylrp.load(tmp_path / "net.mat"), rng.normal(size=(9, 3))
    expected = fc["Weights"] @ run_matlab_gru(given, x)[-1] + fc["Bias"][:, 0]
    np.testing.assert_allclose(net.forward(x), expected, atol=1e-12)


def test_modes_of_matlab_differ_and_have_a_default(tmp_path: Any) -> None:
    rng = np.random.default_rng(7)
    x, outputs = rng.normal(size=(5, 3)), []
    for mode in (MODES[0], MODES[2]):
        given = matlab_gru(rng, mode)
        scipy.io.savemat(tmp_path / "net.mat", {name: v for name, v in given.items() if name != "ResetGateMode"})
        outputs.append(pylrp.load(tmp_path / "net.mat").forward(x))
        np.testing.assert_allclose(outputs[-1], run_matlab_gru(given, x)[-1], atol=1e-12)
    assert not np.allclose(*outputs)


@pytest.mark.parametrize("both", [False, True])
def test_lstm_of_matlab(tmp_path: Any, both: bool) -> None:
    """Two layers in a cell, other functions, first states; a dense layer at each step."""
    rng = np.random.default_rng(8)
    k, units = 1 + both, 4
    sizes = [(4 * units * k, 3), (4 * units * k, units * k)]
    cells: list[dict[str, Any]] = [
        {
            "InputWeights": rng.normal(size=shape),
            "RecurrentWeights": rng.normal(size=(shape[0], units)),
            "Bias": rng.normal(size=(shape[0], 1)),
            "HiddenState": rng.normal(size=(units * k, 1)),
            "CellState": rng.normal(size=(units * k, 1)),
            "OutputMode": "sequence",
            "StateActivationFunction": "softsign",
            "GateActivationFunction": "hard-sigmoid",
        }
        for shape in sizes
    ]
    fc = {"Weights": rng.normal(size=(2, units * k)), "Bias": rng.normal(size=(2, 1))}
    mat_files.write_5(tmp_path / "net.mat", {"layers": mat_files.cell([*cells, fc])})
    net, x = pylrp.load(tmp_path / "net.mat"), rng.normal(size=(7, 3))
    below = x
    for cell in cells:
        names = ("InputWeights", "RecurrentWeights", "Bias", "HiddenState", "CellState")
        parts = zip(*(np.split(cell[name], k) for name in names), strict=True)
        below = np.concatenate(
            [run("lstm", below, w, u, b[:, 0], 0 * b[:, 0], h=h[:, 0], s=s[:, 0], gate=hard_sigmoid, curve=softsign,
                 reverse=bool(at)) for at, (w, u, b, h, s) in enumerate(parts)], axis=1)  # fmt: skip
    np.testing.assert_allclose(net.forward(x), below @ fc["Weights"].T + fc["Bias"][:, 0], atol=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        {"ResetGateMode": "sideways"},
        {"Bias": np.ones((5, 1))},
        {"RecurrentWeights": np.ones((12, 5))},
        {"GateActivationFunction": "softmax"},
        {"OutputMode": "some"},
    ],
)
def test_what_does_not_fit_of_matlab(tmp_path: Any, change: dict[str, Any]) -> None:
    scipy.io.savemat(tmp_path / "net.mat", {**matlab_gru(np.random.default_rng(9), MODES[0]), **change})
    with pytest.raises(ValueError, match=r"net\.mat"):
        pylrp.load(tmp_path / "net.mat")
