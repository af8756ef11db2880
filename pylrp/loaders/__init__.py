"""``pylrp.load``: a trained network from wherever it is, as a :class:`pylrp.Network`.

Looks at what it is given and hands it to the one loader for it, which returns a graph of layers. Loaders are imported
when they are needed, and only then the package that they read with.
"""

from __future__ import annotations

import inspect
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from pylrp._limits import require
from pylrp.errors import UnknownOption
from pylrp.layers import Layer
from pylrp.loaders.chosen_outputs import listed_outputs, with_outputs
from pylrp.loaders.guard import reading, require_file
from pylrp.network.graph import Graph
from pylrp.network.precision import in_dtype

if TYPE_CHECKING:
    from pylrp.network.network import Network

__all__ = ["load"]

_OWN, _TORCH = "a file of pylrp", "a torch module"
_ONNX = ("an ONNX file", "an ONNX model")
_SUFFIXES = (".onnx", ".npz", ".mat", ".keras", ".h5")
#: Files that only another library can read, and what to do with them.
_ELSEWHERE = {
    **dict.fromkeys(
        (".pt", ".pth", ".ckpt", ".safetensors"),
        "it holds weights, or code, that torch reads. Pass the module: make it in Python, load the weights "
        "(module.load_state_dict(...)), and call pylrp.load(module, example_input)",
    ),
    **dict.fromkeys(
        (".pkl", ".pickle", ".joblib"),
        "a pickle runs code when it is read, so pylrp reads none. Read it yourself where you trust it, and pass the "
        "model: pylrp.load(joblib.load(path))",
    ),
    **dict.fromkeys(
        (".pb", ".tflite"),
        "TensorFlow's files are not read. Convert it to ONNX (tf2onnx), or pass the Keras model",
    ),
    ".npy": "it holds one array. Save all of them by name: numpy.savez(path, W1=..., b1=..., W2=..., b2=...)",
}


def load(
    source: Any,
    example_input: Any = None,
    *,
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    operators: Mapping[str, Callable[..., Layer]] | None = None,
    outputs: Sequence[str] | None = None,
    keep_top: bool = False,
    keep_softmax: bool = False,
    input_range: tuple[float, float] | Mapping[str, tuple[float, float]] | None = None,
    max_bytes: int | None = None,
    dtype: DTypeLike | None = None,
    **options: Any,
) -> Network:
    """Return a trained network, ready to be explained.

    Parameters
    ----------
    source : path, model or list of Layer
        - a path: ``.onnx``; ``.npz``, pylrp's own (:meth:`Network.save`) or plainly named arrays; ``.mat`` (MATLAB);
          ``.keras`` or ``.h5`` (Keras);
        - a ``torch.nn.Module``, a Keras model, a fitted scikit-learn ``MLPClassifier`` or ``MLPRegressor``, an
          ``onnx.ModelProto``;
        - a list of :mod:`pylrp.layers`, or a :class:`pylrp.network.Graph`.
    example_input : array_like, tensor, tuple of them or dict by name, optional
        An input as the model takes it, with the batch; torch needs it. With several arguments a tuple, or a dict by
        their names in ``forward``.
    input_shape : sequence of int or mapping of str to sequence of int, optional
        The shape of the input without the batch, or of each input by name. Needed where the model leaves sizes open,
        and for a list of layers that does not begin with a dense layer.
    operators : mapping of str to callable, optional
        How to explain operators that pylrp does not know, or knows otherwise. For ONNX: by operator or name of a node,
        a function ``f(attributes, constants)`` that returns a :class:`pylrp.layers.Layer` for the node's inputs that
        are no constants; ``attributes`` is the node's dict, ``constants`` the list of its constant inputs. The layer
        may be one of pylrp's or a :class:`pylrp.layers.CustomLayer` of your own.
    outputs : sequence of str, optional
        The outputs of the network, by name: some of the model's own, or values inside it, layers or, of an ONNX file,
        its tensors. What only others need is not looked at. Default: all of the model's outputs but labels (ArgMax and
        the like), which are left out with a note.
    keep_top : bool, default False
        Leave a softmax, sigmoid, softplus or exponential function at the top, to explain probabilities instead of
        logits. Default: it is removed, ``Network.top`` is its name.
    keep_softmax : bool, default False
        The same as ``keep_top``.
    input_range : (low, high) or mapping of str to (low, high), optional
        The range of values that the model was trained with, ``(0, 1)`` for example, of all inputs or by name. Inputs
        that plainly were not scaled so get a warning.
    max_bytes : int, optional
        How much memory the constants and the values of one sample may take: what a file declares beyond that is
        refused before it is allocated. Default: 4 GiB or 16 times the file, whichever is more.
    dtype : dtype, optional
        float32 or float64, in which everything is computed. Default: that of the model.
    **options
        Further settings of the loader for this kind of source.

    Returns
    -------
    Network

    Raises
    ------
    UnsupportedLayer
        If the model holds an operator that can't be explained.
    ImportError
        If the package that reads this kind of model is not installed.
    FileNotFoundError
        If there is no such file.
    BrokenFile
        If the file is cut short, altered, not what it says, or asks for more memory than ``max_bytes``.
    ValueError
        If the file is of no known kind, shapes do not fit, or what torch's exporter has made of a module
        predicts something else for the example.
    TypeError
        If the source is of no known kind, or its loader does not take an option.

    Examples
    --------
    >>> from pylrp.layers import Dense, ReLU
    >>> load([Dense([[1.0, -1.0], [0.5, 2.0]]), ReLU(), Dense([[1.0, 1.0]])]).forward([1.0, 0.5])
    array([2.])

    An operator of your own, here one that doubles its input::

        pylrp.load("model.onnx", operators={"Double": lambda attributes, constants: Affine(2.0)})
    """
    from pylrp.network.network import Network  # which saves with a loader's twin

    given = {"example_input": example_input, "input_shape": input_shape, "operators": operators, **options}
    given = {name: value for name, value in given.items() if value is not None}
    what, loader = _choose(source)
    taken = inspect.signature(loader).parameters
    if dtype is not None:
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"dtype is {dtype!r}, relevance is computed in float32 or float64")
        if "dtype" in taken:
            given["dtype"] = dtype
    if outputs is not None:
        outputs = listed_outputs(outputs)
        if "outputs" in taken:
            given["outputs"] = outputs
    keep_top = keep_top or keep_softmax
    if keep_top and "keep_top" in taken:  # a loader that does not put it into the graph
        given["keep_top"] = True
    wrong = [name for name in given if name not in taken]
    if wrong:
        raise UnknownOption(what, wrong[0], list(taken)[1:])
    with reading(source, max_bytes):
        graph = loader(source, **given)
        graph = graph if dtype is None else in_dtype(graph, dtype)
        if input_range is not None:
            graph = graph.changed(
                facts=replace(graph.facts, ranges={**graph.facts.ranges, **_ranges(graph, input_range)})
            )
        if outputs is not None and "outputs" not in given:
            graph = with_outputs(graph, outputs)
        # A softmax in a file of our own was kept on purpose; one with a model says so.
        own = what == _OWN and (graph.facts.lengths is None or graph.facts.lengths.keep_top)
        network = Network.from_graph(graph, keep_top=keep_top or own)
        if what in _ONNX:  # for Network.verify
            network._model = os.path.abspath(source) if isinstance(source, str | os.PathLike) else source
    if what == _TORCH:
        _compare(network, graph, source, example_input, own=operators is not None)
    return network


def _ranges(graph: Graph, given: Any) -> dict[str, tuple[float, float]]:
    """Return the range of each input."""
    by_input = given if isinstance(given, Mapping) else dict.fromkeys(graph.inputs, given)
    found = {}
    for name, pair in by_input.items():
        if name not in graph.inputs:
            raise ValueError(f"input_range: no input is called {name!r}; there are {', '.join(graph.inputs)}")
        try:
            low, high = map(float, pair)
        except (TypeError, ValueError):
            raise TypeError(f"input_range must be a pair (low, high), got {pair!r}") from None
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"input_range must be finite and ascend, got {pair!r}")
        found[name] = low, high
    return found


def _compare(network: Network, graph: Graph, module: Any, example_input: Any, *, own: bool) -> None:
    """Raise where a torch module predicts something else; warn where the user's own operators may be why."""
    if network.graph.facts.top != graph.facts.top:  # a function has been removed, which the module has
        network = type(network).from_graph(graph, keep_top=True)
    wrong = _loader("torch.module", "disagreement")(network, module, example_input)
    if wrong and not own:
        raise ValueError(wrong)
    if wrong:
        warnings.warn(wrong, stacklevel=3)


def _choose(source: Any) -> tuple[str, Callable[..., Graph]]:
    """Return what the source is, in words, and the function that reads it."""
    if isinstance(source, str | os.PathLike):
        return _choose_file(Path(source))
    if isinstance(source, Graph):
        return "a graph", _within_limit
    if isinstance(source, list | tuple) and source and all(isinstance(layer, Layer) for layer in source):
        return "a list of layers", Graph.sequential
    # Without importing anything: the object exists, so its package is imported.
    kinds = _kinds(source)
    packages = {package for package, _ in kinds}
    if "keras" in packages:  # before torch: on that backend a Keras model is a torch module, too
        return "a Keras model", _loader("keras.model", "load_keras")
    if ("torch", "Module") in kinds:
        return _TORCH, _loader("torch.module", "load_torch")
    if "sklearn" in packages:
        return "a scikit-learn estimator", _loader("sklearn.estimator", "load_sklearn")
    if any(name == "ModelProto" for _, name in kinds):
        return _ONNX[1], _loader("onnx.model", "load_onnx")
    if isinstance(source, Mapping) and any(("torch", "Tensor") in _kinds(value) for value in source.values()):
        raise TypeError(
            "source is a dict of tensors, a module's weights without its layers: make the module, call "
            "module.load_state_dict(weights), and pass the module: pylrp.load(module, example_input)"
        )
    raise TypeError(
        f"source is a {type(source).__name__}: give the path of a file ({', '.join(_SUFFIXES)}), a torch, Keras or "
        "scikit-learn model, or a list of pylrp.layers"
    )


def _kinds(source: Any) -> set[tuple[str, str]]:
    """Return the packages and names of an object's classes."""
    return {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(source).__mro__}


def _within_limit(graph: Graph) -> Graph:
    require(graph.nbytes, "the weights and the values of one sample")
    return graph


def _choose_file(path: Path) -> tuple[str, Callable[..., Graph]]:
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES or not path.exists():
        require_file(path)
    if suffix == ".onnx":
        return _ONNX[0], _loader("onnx.model", "load_onnx")
    if suffix == ".npz":
        is_native = _loader("plain.native", "is_native")
        if is_native(path):
            return _OWN, _loader("plain.native", "load_graph")
        return "a file of arrays", _loader("plain.arrays", "load_npz")
    if suffix == ".mat":
        return "a MATLAB file", _loader("plain.arrays", "load_mat")
    if suffix in (".keras", ".h5"):
        return "a Keras file", _loader("keras.model", "load_keras")
    if suffix in _ELSEWHERE:
        raise ValueError(f"{path} is not a file that pylrp reads: {_ELSEWHERE[suffix]}")
    raise ValueError(f"{path} ends in {suffix or 'nothing'}, a network is read from {', '.join(_SUFFIXES)}")


def _loader(module: str, function: str) -> Callable[..., Any]:
    try:
        found: Callable[..., Any] = getattr(import_module(f"pylrp.loaders.{module}"), function)
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise ImportError("an ONNX model is read with the package onnx: pip install onnx") from None
    return found
