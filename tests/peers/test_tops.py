"""The function at the top in torch and Keras; outputs by name; pipelines that skl2onnx has written."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import pylrp

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras

# Keras's conversion of torch's tensors, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

F = torch.nn.functional
X = torch.tensor(np.random.default_rng(40).normal(size=(7, 4)))


class Head(nn.Module):
    """A network in float64 and what stands above its logits."""

    def __init__(self, outputs: int, top: Callable[[Any], Any]):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.out, self.top = nn.Linear(4, 9), nn.Linear(9, outputs), top
        self.double().eval()
        with torch.no_grad():
            self.out.bias -= 0.6  # logits on both sides of 0

    def logits(self, x: Any) -> Any:
        return self.out(torch.relu(self.first(x)))

    def forward(self, x: Any) -> Any:
        return self.top(self.logits(x))

    def map_of(self, target: int) -> Any:
        """Gradient x input with frozen activations, minus what biases have."""
        x = X.clone().requires_grad_()
        self.logits(x)[:, target].sum().backward()
        return (x.grad * X).numpy()


def share(values: Any) -> Any:
    return values / values.sum(1, keepdim=True)


def pair(z: Any, first: bool = False) -> Any:
    p = torch.sigmoid(z)
    return torch.cat([p, 1 - p] if first else [1 - p, p], 1)


#: Outputs, what stands at the top, the name, the sign of the logits that are explained.
TOPS: dict[str, tuple[int, Callable[[Any], Any], str, int]] = {
    "sigmoid": (3, torch.sigmoid, "sigmoid", 1),
    "softplus": (1, F.softplus, "softplus", 1),
    "hard sigmoid": (2, F.hardsigmoid, "hard_sigmoid", 1),
    "relu6": (2, lambda z: F.relu6(z + 3) / 6, "hard_sigmoid", 1),
    "exp": (1, lambda z: 3 * torch.exp(z) + 1, "exp", 1),
    "log softmax": (3, lambda z: torch.log(z.softmax(1) + 1e-9), "log_softmax", 1),
    "log sum exp": (3, lambda z: z - torch.logsumexp(z, 1, keepdim=True), "log_softmax", 1),
    "written softmax": (3, lambda z: share(torch.exp(z - z.amax(1, keepdim=True))), "softmax", 1),
    "softmin": (3, lambda z: F.softmin(z, 1), "softmax", -1),
    "share": (3, lambda z: share(torch.sigmoid(z)), "sigmoid", 1),
    "1 - p": (1, lambda z: 1 - torch.sigmoid(z), "sigmoid", -1),
    "written sigmoid": (1, lambda z: 1 / (1 + torch.exp(-z)), "sigmoid", 1),
    "written 1 - p": (1, lambda z: 1 / (1 + torch.exp(z)), "sigmoid", -1),
    "pair": (1, pair, "sigmoid", 1),
    "pair turned": (1, lambda z: pair(z, first=True), "sigmoid", -1),
    "stacked": (1, lambda z: torch.stack([1 - torch.sigmoid(z[:, 0]), torch.sigmoid(z[:, 0])], 1), "sigmoid", 1),
    "log1p": (1, lambda z: torch.log1p(torch.exp(z)), "softplus", 1),
    "clipped": (2, lambda z: torch.clamp(torch.sigmoid(z), 1e-6, 1 - 1e-6).unsqueeze(2).flatten(1), "sigmoid", 1),
}


@pytest.mark.parametrize("name", TOPS)
def test_torch(name: str) -> None:
    outputs, top, kind, sign = TOPS[name]
    module = Head(outputs, top)
    net = pylrp.load(module, X)
    assert net.top == kind
    z = module.logits(X).detach().numpy()
    assert (z < 0).any()
    np.testing.assert_allclose(net.forward(X.numpy()), sign * z, rtol=1e-9, atol=1e-12)
    for target in range(outputs if outputs > 1 else 2):
        own = sign if outputs > 1 else sign * (1 if target else -1)
        if outputs == 1 and kind != "sigmoid":  # one value, no classes
            target, own = 0, sign
        R = net.explain(X.numpy(), target, pylrp.Epsilon(0)).relevance
        expected = own * module.map_of(target if outputs > 1 else 0)
        np.testing.assert_allclose(R, expected, rtol=1e-7, atol=1e-9)
    kept = pylrp.load(module, X, keep_top=True)
    np.testing.assert_allclose(kept.forward(X.numpy()), module(X).detach().numpy(), rtol=1e-6, atol=1e-9)


class Found(NamedTuple):
    boxes: Any
    scores: Any


RETURNS: dict[str, tuple[Callable[[Any, Any], Any], tuple[str, str]]] = {
    "tuple": (lambda a, b: (a, b), ("output0", "output1")),
    "dict": (lambda a, b: {"boxes": a, "scores": b}, ("boxes", "scores")),
    "named tuple": (Found, ("boxes", "scores")),
}


@pytest.mark.parametrize("name", RETURNS)
def test_torch_outputs(name: str) -> None:
    make, names = RETURNS[name]

    class Two(Head):
        def forward(self, x: Any) -> Any:
            z = self.logits(x)
            return make(z, torch.sigmoid(z[:, :2]))

    module = Two(3, nn.Identity())
    net = pylrp.load(module, X)
    z = module.logits(X).detach().numpy()
    assert net.graph.outputs == names
    found = net.forward(X.numpy())
    np.testing.assert_allclose(found[names[0]], z, rtol=1e-9)
    np.testing.assert_allclose(found[names[1]], z[:, :2], rtol=1e-9)
    assert net.top == {names[1]: "sigmoid"}
    R = net.explain(X.numpy(), 1, pylrp.Epsilon(0), output=names[0])
    np.testing.assert_allclose(R.relevance, module.map_of(1), rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(R.layers["out"], R.layers[names[0]])  # the module's name goes on to count
    np.testing.assert_array_equal(net.explain(X.numpy(), 1, pylrp.Epsilon(0), output="out").relevance, R.relevance)
    one = pylrp.load(module, X, outputs=[names[1]])
    assert (one.graph.outputs, one.top) == ((names[1],), "sigmoid")
    assert pylrp.load(module, X, outputs=["first"]).forward(X.numpy()).shape == (7, 9)
    with pytest.raises(ValueError, match="nothing in the model is called 'boxe'"):
        pylrp.load(module, X, outputs=["boxe"])


def test_torch_labels() -> None:
    class Labelled(Head):
        def forward(self, x: Any) -> Any:
            z = self.logits(x)
            return z, z.argmax(1)

    net = pylrp.load(Labelled(3, nn.Identity()), X)
    assert net.graph.outputs == ("output0",)
    assert sum("output1" in note for note in net.notes) == 1


KERAS: dict[str, tuple[int, str, str]] = {
    "sigmoid": (1, "sigmoid", "sigmoid"), "softplus": (1, "softplus", "softplus"), "softmax": (3, "softmax", "softmax"),
    "hard sigmoid": (1, "hard_sigmoid", "hard_sigmoid"), "log softmax": (3, "log_softmax", "log_softmax"),
    "exp": (1, "exponential", "exp"),
}  # fmt: skip


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", KERAS)
def test_keras(name: str, own: bool) -> None:
    outputs, activation, kind = KERAS[name]
    inputs = keras.Input((4,), name="x")
    hidden = keras.layers.Dense(5, "relu")(inputs)
    z = keras.layers.Dense(outputs, None if own else activation, name="head")(hidden)
    model = keras.Model(inputs, keras.layers.Activation(activation, name="top")(z) if own else z)
    net = pylrp.load(model)
    assert (net.top, net.graph.outputs) == (kind, ("top",) if own else ("head",))
    x = X.numpy().astype(np.float32)
    a, b = (layer.get_weights() for layer in model.layers if isinstance(layer, keras.layers.Dense))
    expected = np.maximum(x @ a[0] + a[1], 0) @ b[0] + b[1]
    np.testing.assert_allclose(net.forward(x), expected, rtol=1e-4, atol=1e-5)
    kept = pylrp.load(model, keep_top=True).forward(x)
    np.testing.assert_allclose(kept, keras.ops.convert_to_numpy(model(x)), rtol=1e-4, atol=1e-5)


def test_keras_outputs_by_key() -> None:
    inputs = keras.Input((4,), name="x")
    hidden = keras.layers.Dense(5, "relu")(inputs)
    a = keras.layers.Dense(2)(hidden)
    b = keras.layers.Dense(1)(hidden)
    top = {"scores": keras.ops.log(keras.ops.softmax(a)), "age": 1 - keras.ops.sigmoid(b), "count": keras.ops.exp(b)}
    net = pylrp.load(keras.Model(inputs, top))
    assert set(net.graph.outputs) == {"scores", "age", "count"}
    shapes = {name: found.shape for name, found in net.forward(X.numpy().astype(np.float32)).items()}
    assert shapes == {"scores": (7, 2), "age": (7, 1), "count": (7, 1)}
    assert net.top == {"scores": "log_softmax", "age": "sigmoid", "count": "exp"}


def test_a_detector_by_the_names_in_its_file(tmp_path: Path) -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
            self.box, self.score = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x: Any) -> Any:
            y = self.body(x)
            scores = self.score(y).flatten(2).permute(0, 2, 1).sigmoid()
            return self.box(y).flatten(2).permute(0, 2, 1), scores, scores.max(2)[1]

    x, path = torch.rand(2, 3, 6, 6), tmp_path / "detector.onnx"
    names = ["boxes", "scores", "classes"]
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            Detector().eval(), (x,), path, dynamo=False, input_names=["image"], output_names=names,
            dynamic_axes={"image": {0: "n"}},
        )  # fmt: skip
    net = pylrp.load(path)
    assert net.graph.outputs == ("boxes", "scores")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    boxes, scores, _ = session.run(None, {"image": x.numpy()})
    found = net.forward(x.numpy())
    np.testing.assert_allclose(found["boxes"], boxes, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-found["scores"])), scores, rtol=1e-4, atol=1e-5)
    target = np.zeros((2, 36, 2), np.float32)
    target[:, 14, 1] = found["scores"][:, 14, 1]
    ex = net.explain(x.numpy(), output="scores", target=target, composite="epsilon")
    assert ex.output.shape == (2, 36, 2)
    assert np.abs(ex.relevance[:, :, :1]).max() == 0  # the first row is more than a pixel off


@pytest.mark.parametrize("labels", [(0, 1), ("no", "yes"), ("a", "b", "c")])
@pytest.mark.parametrize("zipmap", [False, True])
def test_what_skl2onnx_writes_is_the_pipeline(labels: tuple[Any, ...], zipmap: bool) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(3)
    x = rng.normal(2, 3, size=(90, 4)).astype(np.float32)
    y = np.array(labels)[(x @ rng.normal(size=(4, len(labels)))).argmax(1)]
    with warnings.catch_warnings(action="ignore"):
        pipe = make_pipeline(StandardScaler(), MLPClassifier((6,), max_iter=100, random_state=0)).fit(x, y)
    made = skl2onnx.to_onnx(pipe, x[:1], options={id(pipe): {"zipmap": zipmap}})
    assert isinstance(made, onnx.ModelProto)
    ours, theirs = pylrp.load(made), pylrp.load(pipe)
    assert (ours.top, ours.graph.facts.classes) == (theirs.top, theirs.graph.facts.classes)
    for target in (None, labels[0], labels[-1]):
        a, b = (net.explain(x[:9], target, "epsilon").relevance for net in (ours, theirs))
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max())
