"""The onnx package's light_* graphs with random weights load, run like onnxruntime, and their ledger sums to zero."""

from pathlib import Path

import numpy as np
import pytest

import pylrp

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

FOLDER = Path(onnx.__file__).parent / "backend/test/data/light"
# Those with the most weights or layers run at night.
NAMES = (
    pytest.param("bvlc_alexnet", marks=pytest.mark.nightly),
    pytest.param("densenet121", marks=pytest.mark.nightly),
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    pytest.param("vgg19", marks=pytest.mark.nightly),
    pytest.param("zfnet512", marks=pytest.mark.nightly),
)


def with_random_weights(name):
    """Return a light graph whose weights, ConstantOfShape nodes there, are drawn at random."""
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    rng = np.random.default_rng(0)
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = tuple(constants[node.input[0]])
        readers = [other for other in model.graph.node if node.output[0] in other.input]
        position = list(readers[0].input).index(node.output[0])
        if readers[0].op_type == "BatchNormalization":
            values = rng.uniform(0.5, 1.5, shape) if position in (1, 4) else 0.1 * rng.standard_normal(shape)
        else:
            fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 100
            values = np.sqrt(2 / fan_in) * rng.standard_normal(shape, dtype=np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_light_graph(name, tmp_path):
    model = with_random_weights(name)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    net = pylrp.load(path, keep_softmax=True)
    (shape,) = net.graph.inputs.values()
    x = np.random.default_rng(1).standard_normal((1, *shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: x})[0].ravel()
    np.testing.assert_allclose(net.forward(x).ravel(), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert np.ptp(expected) > 0
    net = pylrp.load(path)
    target = int(expected.argmax())
    for composite in ("epsilon_plus_flat", pylrp.composite("epsilon_gamma_box", low=-6, high=6)):
        ex = net.explain(x, target, composite, start="one")
        data = ex.ledger.data[:, :, 0]
        scale = np.abs(data[:, :2]).max()
        assert np.abs(data[:, -1]).max() < 1e-4 * scale  # rounding, layer by layer
        absorbed = data[:, 2:].sum()
        assert abs(1 - ex.relevance.sum(dtype=np.float64) - absorbed) < 1e-4 * scale
