"""`pylrp.load`: which loader a source goes to, what is handed over, and what is refused.

The loaders themselves have tests of their own; here they only note that they were called.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp import loaders
from pylrp.loaders import load
from pylrp.network.graph import Graph
from pylrp.network.network import Network

LAYERS = [L.Dense(np.ones((2, 3))), L.ReLU()]


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Note what reaches the network, and hand the graph back in its place."""
    notes: list[dict[str, Any]] = []

    def from_graph(graph: Any, **options: Any) -> Any:
        notes.append(options)
        return graph

    monkeypatch.setattr(Network, "from_graph", from_graph)
    return notes


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Note which loader is called, and with what."""
    notes: list[tuple[Any, ...]] = []

    def find(module: str, function: str) -> Any:
        def loader(source: Any, example_input: Any = None, *, operators: Any = None) -> Any:
            notes.append((module, function, source, example_input, operators))
            return SimpleNamespace(facts=SimpleNamespace(lengths=None))

        def is_native(path: Path) -> bool:
            return ".pylrp" in path.name

        return is_native if function == "is_native" else loader

    monkeypatch.setattr(loaders, "_loader", find)
    monkeypatch.setattr(loaders, "_compare", lambda network, graph, source, example, **kind: None)
    return notes


@pytest.mark.parametrize(
    ("name", "module", "function"),
    [
        ("net.onnx", "onnx.model", "load_onnx"),
        ("NET.ONNX", "onnx.model", "load_onnx"),
        ("net.npz", "plain.arrays", "load_npz"),
        ("net.pylrp.npz", "plain.native", "load_graph"),
        ("net.mat", "plain.arrays", "load_mat"),
        ("net.keras", "keras.model", "load_keras"),
        ("net.h5", "keras.model", "load_keras"),
    ],
)
@pytest.mark.parametrize("kind", [str, Path])
def test_files_by_suffix(
    name: str, module: str, function: str, kind: Any, tmp_path: Path, called: list[Any], made: list[Any]
) -> None:
    path = tmp_path / name
    path.touch()
    load(kind(path))
    assert called == [(module, function, kind(path), None, None)]
    assert made == [{"keep_top": function == "load_graph"}]


def kind(name: str, package: str, *bases: type) -> type:
    return type(name, bases, {"__module__": package})


@pytest.mark.parametrize(
    ("base", "module", "function"),
    [
        (kind("Module", "torch.nn.modules.module"), "torch.module", "load_torch"),
        (kind("Functional", "keras.src.models.functional"), "keras.model", "load_keras"),
        (kind("MLPClassifier", "sklearn.neural_network._multilayer_perceptron"), "sklearn.estimator", "load_sklearn"),
        (kind("ModelProto", "onnx.onnx_ml_pb2"), "onnx.model", "load_onnx"),
    ],
)
def test_objects_by_their_classes(base: type, module: str, function: str, called: list[Any]) -> None:
    source = kind("Mine", "my.models", base)()
    before = set(sys.modules)
    load(source, [[1.0]], operators={"a": L.ReLU})
    assert called == [(module, function, source, [[1.0]], {"a": L.ReLU})]
    assert not {name for name in set(sys.modules) - before if name.startswith(("torch", "keras", "sklearn", "onnx"))}


def test_layers_and_graphs(made: list[Any]) -> None:
    graph: Any = load(LAYERS)
    assert [node.name for node in graph.nodes] == ["0", "relu0"]
    assert load((L.ReLU(),), input_shape=(3,), keep_softmax=True).inputs == {"input": (3,)}  # type: ignore[attr-defined]
    assert load(graph) is graph
    assert made == [{"keep_top": False}, {"keep_top": True}, {"keep_top": False}]


def test_what_is_no_network(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*net.onnx"):
        load(tmp_path / "net.onnx")
    wrong = tmp_path / "net.txt"
    wrong.touch()
    with pytest.raises(
        ValueError, match=r"net.txt ends in .txt, a network is read from .onnx, .npz, .mat, .keras, .h5"
    ):
        load(wrong)
    with pytest.raises(ValueError, match="ends in nothing"):
        load(tmp_path)
    for source in (3, [], [1, 2], {"W1": 1}, None):
        with pytest.raises(TypeError, match=r"give the path of a file .*, a torch, Keras or scikit-learn model"):
            load(source)


def test_options_that_a_loader_does_not_take() -> None:
    with pytest.raises(TypeError, match="a list of layers takes no operators=, only input_shape"):
        load(LAYERS, operators={"Relu": L.ReLU})
    with pytest.raises(TypeError, match="a graph takes no input_shape="):
        load(Graph.sequential(LAYERS), input_shape=(3,))
    with pytest.raises(TypeError, match="takes no opset="):
        load(LAYERS, opset=3)


def test_onnx_is_an_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.touch()
    for name in [name for name in sys.modules if name.startswith("pylrp.loaders.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"package onnx: pip install onnx"):
        load(path)


def test_the_own_file_of_a_network(tmp_path: Path) -> None:
    native = pytest.importorskip("pylrp.loaders.plain.native")
    graph = Graph.sequential(LAYERS)
    native.save_graph(graph, tmp_path / "net.npz")
    again: Any = load(tmp_path / "net.npz")
    assert again.shapes == graph.shapes


def test_an_option_that_a_model_does_not_take_says_which() -> None:
    with pytest.raises(pylrp.UnknownOption) as caught:
        load(LAYERS, operators={"a": lambda attributes, constants: L.ReLU()})
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.option, error.source) == ("operators", "a list of layers")
    assert "input_shape" in error.known
    assert str(error) == str(caught.value)


def test_a_rule_that_a_library_lacks_says_whose() -> None:
    W = [np.ones((2, 3))]
    with pytest.raises(pylrp.MissingRule) as caught:
        pylrp.relevance(W, [np.ones((1, 3))], np.ones((1, 2)), rules=[pylrp.Gamma(0.5)], convention="innvestigate")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.convention, error.kind, error.rule) == ("innvestigate", "Gamma", "Gamma(0.5)")
    found = pylrp.compare(W, [np.ones((1, 3))], np.ones((1, 2)), rules=[pylrp.Gamma(0.5)])
    assert "innvestigate" in found.missing
