"""What error messages advise, followed: a call that is refused, and the same as its message says, which works.

A message that says what to do is a claim like any other; each entry holds one. `tests/peers/test_refusals.py` has those
about torch and Keras.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp.cli import main
from pylrp.errors import AbsorbedValue, MisplacedBox
from pylrp.network.graph import Graph, Node

RNG = np.random.default_rng(0)
W = [RNG.standard_normal((4, 5)), RNG.standard_normal((3, 4))]
X = RNG.random((6, 5))
ACTS = [X, np.maximum(X @ W[0].T, 0)]
OUT = ACTS[1] @ W[1].T


def dense(**facts: Any) -> pylrp.Network:
    return pylrp.Network([L.Dense(W[0], name="below"), L.ReLU(), L.Dense(W[1], name="above")])


def images() -> pylrp.Network:
    weight = np.random.default_rng(1).standard_normal((4, 3, 3, 3))
    return pylrp.Network([L.Conv(weight, padding=1, name="conv"), L.ReLU()], input_shape=(3, 6, 6))


def averaged() -> pylrp.Network:
    """A mean below the first layer with weights: part of that layer under w²."""
    return pylrp.Network([L.AveragePool(2), L.Conv(np.ones((2, 1, 1)), name="conv")], input_shape=(1, 8))


def two_inputs() -> pylrp.Network:
    nodes = [Node("sum", L.Add(), ("a", "b"))]
    return pylrp.Network.from_graph(Graph({"a": (3,), "b": (3,)}, nodes, ["sum"], dtype=np.float64))


def two_outputs() -> pylrp.Network:
    nodes = [Node("a", L.Dense(W[0]), ("x",)), Node("b", L.Dense(W[1]), ("a",))]
    return pylrp.Network.from_graph(Graph({"x": (5,)}, nodes, ["a", "b"], dtype=np.float64))


def relevance(**changed: Any) -> Any:
    given = {"W_list": W, "acts": ACTS, "out": OUT, **changed}
    return pylrp.relevance(given.pop("W_list"), given.pop("acts"), given.pop("out"), **given)


def boxed(name: str) -> pylrp.Composite:
    return pylrp.Composite("mine", pylrp.Epsilon(), names={name: pylrp.ZBox(0, 1)})


def start(shape: tuple[int, ...], *place: int) -> Any:
    array = np.zeros(shape, np.float64)
    array[(..., *place)] = 1
    return array


#: Whose square leaves float32.
SQUARED = np.array([[1e-30, 1e25]], np.float32)
ONES = np.ones((1, 2), np.float32)
TINY = np.array([[1e20, 1e20]], np.float32)


def cancelling(dtype: Any, stabilizer: float = 1e-6, size: float = 1e20) -> Any:
    """Two products that add up to nothing."""
    weight, x, top = np.array([[size, -size]], dtype), np.full((1, 2), 2, dtype), np.array([[1e25]], dtype)
    return pylrp.relevance([weight], [x], top, rules=pylrp.Epsilon(stabilizer))


def cancelling_network(dtype: str) -> pylrp.Network:
    below = L.Dense(np.eye(2, dtype=dtype), name="below")
    return pylrp.Network([below, L.Dense(np.array([[1.0, -1.0 + 1e-7]], dtype), name="above")])


IMAGES = RNG.random((2, 3, 6, 6))
Call = Callable[[], Any]
#: The call, a part of its message, and the call as the message says.
WAYS_OUT: dict[str, tuple[Call, type[Exception], str, Call]] = {
    "the output among acts": (
        lambda: relevance(acts=[*ACTS, OUT]), ValueError, "pass acts[:-1]", lambda: relevance(acts=[*ACTS, OUT][:-1])
    ),
    "transposed weights": (
        lambda: relevance(W_list=[w.T for w in W]), ValueError, "pass [W.T for W in W_list]",
        lambda: relevance(W_list=[w.T for w in [w.T for w in W]]),
    ),
    "samples as columns": (
        lambda: relevance(out=OUT.T), ValueError, "pass out.T", lambda: relevance(out=OUT.T.T)
    ),
    "samples as columns, to a network": (
        lambda: dense().explain(X.T), ValueError, "pass x.T", lambda: dense().explain(X.T.T)
    ),
    "mixed dtypes": (
        lambda: relevance(out=OUT.astype("f")), TypeError, "convert all arrays to one",
        lambda: relevance(out=OUT.astype("f").astype("d")),
    ),
    "integers": (
        lambda: dense().explain(np.ones((2, 5), int)), TypeError, ".astype(numpy.float32)",
        lambda: dense().explain(np.ones((2, 5), int).astype(np.float32)),
    ),
    "a class of rules": (
        lambda: relevance(rules=[pylrp.Epsilon, pylrp.ZPlus()]), TypeError, "write Epsilon()",
        lambda: relevance(rules=[pylrp.Epsilon(), pylrp.ZPlus()]),
    ),
    "a class as a rule": (
        lambda: pylrp.Composite("mine", pylrp.ZPlus), TypeError, "write ZPlus()",
        lambda: pylrp.Composite("mine", pylrp.ZPlus()),
    ),
    "a number as a rule": (
        lambda: pylrp.Composite("mine", 1e-6), TypeError, "pass an object such as pylrp.Epsilon()",
        lambda: pylrp.Composite("mine", pylrp.Epsilon()),
    ),
    "a box without a layer": (
        lambda: relevance(rules=pylrp.composite("epsilon_gamma_box")), ValueError, "rules=pylrp.Composite(..., first=",
        lambda: relevance(rules=pylrp.Composite("mine", pylrp.Epsilon(), first=pylrp.ZBox(0, 1))),
    ),
    "a composite nearly called so": (
        lambda: pylrp.composite("epsilon-pluss"), ValueError, "do you mean 'epsilon_plus'",
        lambda: pylrp.composite("epsilon_plus"),
    ),
    "a rule by its symbol": (
        lambda: dense().explain(X, rules="z+"), ValueError, "do you mean the rule pylrp.ZPlus()",
        lambda: dense().explain(X, rules=pylrp.ZPlus()),
    ),
    "a rule by its letters": (
        lambda: relevance(rules="alpha2-beta1"), ValueError, "do you mean the rule pylrp.AlphaBeta(2, 1)",
        lambda: relevance(rules=pylrp.AlphaBeta(2, 1)),
    ),
    "a network among arrays": (
        lambda: pylrp.relevance(dense(), ACTS, OUT), TypeError, "call its explain(x)", lambda: dense().explain(X),
    ),
    "a convention nearly called so": (
        lambda: relevance(convention="Zenit"), ValueError, "do you mean 'zennit'",
        lambda: relevance(convention="zennit"),
    ),
    "a kind nearly called so": (
        lambda: pylrp.Composite("mine", pylrp.Epsilon(), {"Conv": pylrp.ZPlus()}), ValueError, "do you mean 'conv'",
        lambda: pylrp.Composite("mine", pylrp.Epsilon(), {"conv": pylrp.ZPlus()}),
    ),
    "channels last": (
        lambda: images().explain(np.moveaxis(IMAGES, 1, -1), target=0), ValueError, "pass numpy.moveaxis(x, -1, -3)",
        lambda: images().explain(np.moveaxis(np.moveaxis(IMAGES, 1, -1), -1, -3), start((2, 4, 6, 6), 0, 0, 0)),
    ),
    "positions without a target": (
        lambda: images().explain(IMAGES), ValueError,
        "pass target=, an entry such as (-1, -1, 0), a channel or an array",
        lambda: images().explain(IMAGES, target=2),
    ),
    "two targets": (
        lambda: dense().explain(X, 1, targets=[1, 2]), ValueError, "target or targets, not both",
        lambda: dense().explain(X, targets=[1, 2]),
    ),
    "relevance that overflows, in float64": (
        lambda: cancelling(np.float32), pylrp.NotFinite, "numpy.float64", lambda: cancelling(np.float64),
    ),
    "relevance that overflows, stabilized": (
        lambda: cancelling(np.float32), pylrp.NotFinite, "a stabilizer as large as",
        lambda: cancelling(np.float32, 2e20),
    ),
    "relevance of float64 that overflows": (
        lambda: cancelling(np.float64, size=1e300), pylrp.NotFinite, "a stabilizer as large as",
        lambda: cancelling(np.float64, 2e300, size=1e300),
    ),
    "squares that overflow": (
        lambda: pylrp.relevance([SQUARED], [ONES], ONES[:, :1], rules=pylrp.WSquare()), pylrp.NotFinite,
        "numpy.float64",
        lambda: pylrp.relevance(
            [SQUARED.astype("d")], [ONES.astype("d")], ONES[:, :1].astype("d"), rules=pylrp.WSquare()
        ),
    ),
    "relevance of a network that overflows, in float64": (
        lambda: cancelling_network("f").explain(TINY, np.full((1, 1), 1e38, "f"), pylrp.Epsilon()), pylrp.NotFinite,
        "numpy.float64",
        lambda: cancelling_network("d").explain(TINY.astype("d"), np.full((1, 1), 1e38), pylrp.Epsilon()),
    ),
    "relevance of a network that overflows, stabilized": (
        lambda: cancelling_network("f").explain(TINY, np.full((1, 1), 1e38, "f"), pylrp.Epsilon()), pylrp.NotFinite,
        "a stabilizer as large as",
        lambda: cancelling_network("f").explain(TINY, np.full((1, 1), 1e38, "f"), pylrp.Epsilon(1e20)),
    ),
    "a class against itself": (
        lambda: dense().explain(X, 1, against=1), ValueError, "pass another one",
        lambda: dense().explain(X, 1, against=2),
    ),
    "several inputs": (
        lambda: two_inputs().explain(X[:, :3]), ValueError, "pass a dict by name or a tuple",
        lambda: (two_inputs().explain((X[:, :3], X[:, :3])), two_inputs().explain({"a": X[:, :3], "b": X[:, :3]})),
    ),
    "several outputs": (
        lambda: two_outputs().explain(X), ValueError, "pass output= with one's name",
        lambda: two_outputs().explain(X, output="b"),
    ),
    "a value that is part of a layer": (
        lambda: averaged().explain(np.ones((1, 8)), target=0, composite=pylrp.WSquare(), layers=["avgpool0"]),
        AbsorbedValue, "names={'conv': pylrp.ZPlus()}",
        lambda: averaged().explain(
            np.ones((1, 8)), target=0, layers=["avgpool0"],
            composite=pylrp.Composite("mine", pylrp.WSquare(), names={"conv": pylrp.ZPlus()}),
        ),
    ),
    "a box without a convolution": (
        lambda: dense().explain(X, composite="epsilon_gamma_box"), MisplacedBox, "",
        lambda: dense().explain(X, composite=boxed("below")),
    ),
    "a layer without its input's shape": (
        lambda: pylrp.Network([L.ReLU(), L.Dense(W[0])]), ValueError, "input_shape=",
        lambda: pylrp.Network([L.ReLU(), L.Dense(W[0])], input_shape=(5,)),
    ),
    "relevance that was not kept": (
        lambda: sent(dense().explain(X)).layers["below"], KeyError, "explain with layers=['below']",
        lambda: sent(dense().explain(X, layers=["below"])).layers["below"],
    ),
}  # fmt: skip


def sent(ex: pylrp.Explanation) -> pylrp.Explanation:
    """What arrives in another process."""
    import pickle

    made: pylrp.Explanation = pickle.loads(pickle.dumps(ex))
    return made


@pytest.mark.parametrize("name", WAYS_OUT)
def test_what_a_message_says_works(name: str) -> None:
    call, kind, advice, way_out = WAYS_OUT[name]
    with pytest.raises(kind) as caught:
        call()
    assert advice in str(caught.value)
    way_out()


def saved(folder: Path, suffix: str) -> Path:
    path = folder / f"net{suffix}"
    path.write_bytes(b"weights")
    return path


def test_files_of_other_libraries(tmp_path: Path) -> None:
    for suffix, word in ((".pt", "Pass the module"), (".PTH", "Pass the module"), (".pkl", "pass the model")):
        with pytest.raises(ValueError, match=word):
            pylrp.load(saved(tmp_path, suffix))
    np.save(tmp_path / "w.npy", W[0])
    with pytest.raises(ValueError, match=r"numpy\.savez"):
        pylrp.load(tmp_path / "w.npy")
    np.savez(tmp_path / "w.npz", W1=W[0], b1=np.zeros(4), W2=W[1], b2=np.zeros(3))
    assert pylrp.load(tmp_path / "w.npz").output_size == 3


def test_searches() -> None:
    pytest.importorskip("sklearn")
    import joblib
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPRegressor

    search = GridSearchCV(
        MLPRegressor(hidden_layer_sizes=(4,), solver="lbfgs", max_iter=5), {"alpha": [0.1, 0.2]}, cv=2
    )
    with pytest.raises(TypeError, match=r"after fit\(X, y\).* search.best_estimator_"):
        pylrp.load(search)
    rng = np.random.default_rng(0)
    x = rng.random((20, 5))
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # five steps are no training
        search.fit(x, x[:, 0])
    with pytest.raises(TypeError, match=r"search\.best_estimator_"):
        pylrp.load(search)
    network = pylrp.load(search.best_estimator_)
    np.testing.assert_allclose(network.forward(x)[:, 0], search.predict(x), rtol=1e-6)
    assert joblib  # what the message about pickles reads with comes with scikit-learn


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["explane"], "explain"),
        (["evalute"], "evaluate"),
        (["explain", "m.npz", "x.npy", "--composite", "epsilon-plus"], "epsilon_plus"),
        (["explain", "m.npz", "x.npy", "--convention", "Zennit"], "zennit"),
        (["explain", "m.npz", "x.npy", "--picture", "layer"], "layers"),
    ],
)
def test_commands_and_choices_nearly_called_so(given: list[str], meant: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        main(given)
    assert caught.value.code == 2
    assert f"do you mean {meant!r}?" in capsys.readouterr().err


def test_a_report_is_an_output(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["report", "net.npz", "x.npy"])
    assert "pylrp explain MODEL INPUT -o report.html" in capsys.readouterr().err
    dense().save(tmp_path / "net.npz")
    np.save(tmp_path / "x.npy", X)
    main(["explain", str(tmp_path / "net.npz"), str(tmp_path / "x.npy"), "-o", str(tmp_path / "report.html"), "-q"])
    assert (tmp_path / "report.html").stat().st_size > 1000


def test_a_rule_for_all_layers(tmp_path: Path, capsys: Any) -> None:
    dense().save(tmp_path / "net.npz")
    np.save(tmp_path / "x.npy", X)
    given = ["explain", str(tmp_path / "net.npz"), str(tmp_path / "x.npy"), "-o", str(tmp_path / "maps.npz"), "-q"]
    with pytest.raises(SystemExit):
        main([*given, "--composite", "z+"])
    rule = capsys.readouterr().err.partition("--rule '")[2].partition("'")[0]
    main([*given, "--rule", rule])
    found = np.load(tmp_path / "maps.npz")["relevance"]
    np.testing.assert_allclose(found, dense().explain(X, rules=pylrp.ZPlus()).relevance, rtol=1e-6)


def test_names_of_rules_in_hints_are_calls() -> None:
    from pylrp.rules.composites import _RULES

    for call in _RULES.values():
        assert isinstance(eval(f"pylrp.{call}", {"pylrp": pylrp, "low": 0, "high": 1}), pylrp.Rule)


def test_hints_install_what_is_missing() -> None:
    """pylrp is not in the package index: no hint names it. Each names a distribution that the extras declare."""
    import re
    from importlib.metadata import requires

    declared = {re.split(r"[^\w.-]", entry, maxsplit=1)[0].lower() for entry in requires("pylrp") or ()}
    hints = []
    for path in Path(pylrp.__file__).parent.rglob("*.py"):
        for line in re.findall(
            r"[\"'].*pip install ([^`\n]*?)(?:\"$|'|\"\)|\(| \()", path.read_text(encoding="utf-8"), re.M
        ):
            hints += [(path.name, word.strip('"').partition(">=")[0]) for word in line.split()]
    assert len(hints) >= 10
    assert [hint for hint in hints if hint[1].lower() not in declared] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "code", "hint"),
    [
        ("matplotlib", "import pylrp.demo as d; pylrp.plot.new_figure(1, 1)", "pip install matplotlib"),
        ("onnx", "pylrp.load('m.onnx')", "pip install onnx"),
        ("scipy", "pylrp.load('m.mat')", "pip install scipy"),
    ],
)
def test_missing_packages(module: str, code: str, hint: str, tmp_path: Path) -> None:
    for name in ("m.onnx", "m.mat"):
        (tmp_path / name).write_bytes(b"MATLAB 5.0 MAT-file".ljust(256, b" "))
    script = f"import sys; sys.modules[{module!r}] = None\nimport pylrp\n"
    script += f"try:\n    {code}\nexcept ImportError as error:\n    print(error)"
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert hint in run.stdout, run.stderr
