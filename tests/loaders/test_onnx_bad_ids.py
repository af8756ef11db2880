"""Token ids and masks that a model can't take: each is an error that says so, or has the defined result."""

from __future__ import annotations

import numpy as np
import pytest

import pylrp
from pylrp.errors import NotInVocabulary

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper, parser  # noqa: E402

WORDS, PLACES, WIDTH = 9, 12, 4
TEXT = """s = Shape(ids); one = Gather(s, at); n = Squeeze(one); r = Range(zero, n, by); p = Gather(places, r);
w = Gather(words, ids); x = Add(w, p); q = MatMul(x, wq); t = Transpose<perm=[0, 2, 1]>(x); a = MatMul(q, t);
seen = Cast<to=9>(mask); keys = Unsqueeze(seen, at); m = Where(keys, a, least); o = Softmax<axis=2>(m);
h = MatMul(o, x); f = Gather<axis=1>(h, zero); y = MatMul(f, head)"""


@pytest.fixture(scope="module")
def net():
    rng = np.random.default_rng(0)
    shapes = {"places": (PLACES, WIDTH), "words": (WORDS, WIDTH), "wq": (WIDTH, WIDTH), "head": (WIDTH, 3)}
    constants = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    constants |= {"at": np.array([1]), "zero": np.array(0), "by": np.array(1), "least": np.array(-np.inf, np.float32)}
    graph = helper.make_graph(
        [parser.parse_node(" ".join(part.split())) for part in TEXT.split(";")],
        "test",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in ("ids", "mask")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return pylrp.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def ids(batch=2, length=5):
    return np.random.default_rng(1).integers(0, WORDS, (batch, length))


@pytest.mark.parametrize("wrong", [WORDS, -1, 2**40])
def test_ids_outside_the_vocabulary(net, wrong):
    given = ids()
    given[1, 3] = wrong
    with pytest.raises(NotInVocabulary, match=f"{WORDS - 1}"):
        net.explain({"ids": given, "mask": np.ones_like(given)}, 0)


@pytest.mark.parametrize("shape", [(2, 4), (2, 6), (3, 5), (5,)])
def test_masks_of_another_shape(net, shape):
    with pytest.raises(ValueError, match="mask"):
        net.explain({"ids": ids(), "mask": np.ones(shape, int)}, 0)


@pytest.mark.parametrize("kind", [np.float32, np.float64, bool, str, object])
def test_ids_that_are_no_whole_numbers(net, kind):
    with pytest.raises(TypeError, match="ids"):
        net.explain({"ids": ids().astype(kind), "mask": np.ones((2, 5), int)}, 0)


def test_lengths(net):
    for length in (1, PLACES):
        ex = net.explain({"ids": ids(2, length), "mask": np.ones((2, length), int)}, 0)
        assert ex.relevance.shape == (2, length)
    with pytest.raises(ValueError, match="empty"):
        net.explain({"ids": ids(2, 0), "mask": np.ones((2, 0), int)}, 0)
    with pytest.raises(ValueError, match=f"of {PLACES}"):
        net.explain({"ids": ids(2, PLACES + 1), "mask": np.ones((2, PLACES + 1), int)}, 0)


@pytest.mark.parametrize("composite", ["cp_lrp", "attnlrp"])
def test_all_tokens_masked(net, composite):
    """A row of attention that is closed altogether is zero, as ONNX defines, and takes no relevance."""
    mask = np.ones((2, 5), int)
    mask[1] = 0
    ex = net.explain({"ids": ids(), "mask": mask}, 0, composite=composite)
    assert not ex.output[1].any()
    assert not ex.relevance[1].any()
    alone = net.explain({"ids": ids()[:1], "mask": mask[:1]}, 0, composite=composite)
    np.testing.assert_allclose(ex.relevance[0], alone.relevance[0], rtol=1e-5)


@pytest.mark.parametrize("composite", ["cp_lrp", "attnlrp", "epsilon"])
def test_no_samples(net, composite):
    none = np.zeros((0, 5), int)
    ex = net.explain({"ids": none, "mask": none}, 0, composite=composite)
    assert ex.output.shape == (0, 3)
    assert ex.relevance.shape == (0, 5)
    assert ex.positions.shape[0] == 0
