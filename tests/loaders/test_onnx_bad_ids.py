"""Token ids and masks that a model can't take: each is an error that says so, or has the defined result."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import pylrp
from pylrp.errors import NotFinite, NotInVocabulary, UnfitInput, UnfitLength

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper, parser  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

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


@pytest.mark.parametrize("shape", [(2, 4), (2, 6), (3, 5), (5,), (2, 5, 1), (2, 1, 5), ()])
def test_masks_of_another_shape(net, shape):
    with pytest.raises(UnfitInput, match="mask") as caught:
        net.explain({"ids": ids(), "mask": np.ones(shape, int)}, 0)
    assert (caught.value.input, caught.value.shape) == ("mask", shape)


@pytest.mark.parametrize("kind", [np.float32, np.float64, bool, str, object])
def test_ids_that_are_no_whole_numbers(net, kind):
    with pytest.raises(TypeError, match="ids"):
        net.explain({"ids": ids().astype(kind), "mask": np.ones((2, 5), int)}, 0)


def test_sizes_that_are_free_are_said_to_be(net):
    with pytest.raises(UnfitInput, match=r"x\['ids'\] has shape \(1, 2, 5\), the network takes \(batch, any length\)"):
        net.explain({"ids": ids()[None], "mask": np.ones((2, 5), int)}, 0)


def test_rows_of_unequal_length(net):
    with pytest.raises(UnfitInput, match="list of samples"):
        net.explain({"ids": [[1, 2, 3], [4, 5]], "mask": [[1, 1, 1], [1, 1]]}, 0)
    samples = [{"ids": [1, 2, 3], "mask": [1, 1, 1]}, {"ids": [4, 5], "mask": [1, 1]}]  # the way out
    assert [len(each) for each in net.explain(samples, 0).relevance] == [3, 2]


@pytest.mark.parametrize(
    ("given", "said", "named"),
    [
        (["ids"], "add mask", "mask"),
        (["ids", "mask", "types"], "leave types out", "types"),
        (["mask", "Ids"], "add ids, leave Ids out", "ids"),
        ([], "has inputs none", "ids"),
    ],
)
def test_inputs_by_other_names(net, given, said, named):
    with pytest.raises(UnfitInput, match=said) as caught:
        net.explain(dict.fromkeys(given, ids()), 0)
    assert caught.value.input == named


@pytest.mark.parametrize("call", ["explain", "forward"])
def test_in_a_list_the_sample_is_named(net, call):
    def run(third):
        samples = [{"ids": np.arange(n), "mask": np.ones(n, int)} for n in (4, 4, 5, 3)]
        return getattr(net, call)([*samples[:2], third, *samples[2:]])

    with pytest.raises(NotInVocabulary, match=r"ids\[2, 1\] is 9") as caught:
        run({"ids": np.array([0, WORDS, 1, 1]), "mask": np.ones(4, int)})
    assert caught.value.at == (2, 1)
    for wrong, expected in (
        ({"ids": np.arange(4), "mask": np.ones(3, int)}, UnfitInput),
        ({"ids": np.arange(0), "mask": np.ones(0, int)}, UnfitInput),
        ({"ids": np.arange(4.0), "mask": np.ones(4, int)}, TypeError),
        ({"ids": np.zeros(PLACES + 2, int), "mask": np.ones(PLACES + 2, int)}, UnfitLength),
    ):
        with pytest.raises(expected, match=r"x\[2\]") as unfit:
            run(wrong)
        assert isinstance(unfit.value, UnfitInput)
        assert unfit.value.sample == 2
        assert str(pickle.loads(pickle.dumps(unfit.value))) == str(unfit.value)
        cause = unfit.value.__cause__
        assert cause is None or cause.__cause__ is not cause  # what pickles causes, as Dask does, comes to an end


@pytest.mark.parametrize("composite", ["cp_lrp", "attnlrp"])
@pytest.mark.parametrize("other", [2, -1])
def test_masks_that_are_neither_0_nor_1(other, composite):
    """What a file makes of them, onnx's reference does: (1 - 2) times the lowest number is the largest, not -inf."""
    text = """
        <ir_version: 8, opset_import: ["": 17]>
        test (int64[n, t] ids, int64[n, t] mask) => (float[n, t, 2] y)
        <float one = {1}, float least = {-3.4028234663852886e38}, int64[1] at = {1}> {
          x = Gather (words, ids)
          t = Transpose <perm = [0, 2, 1]> (x)
          a = MatMul (x, t)
          seen = Cast <to = 1> (mask)
          unseen = Sub (one, seen)
          lowest = Mul (unseen, least)
          keys = Unsqueeze (lowest, at)
          m = Add (a, keys)
          o = Softmax <axis = 2> (m)
          y = MatMul (o, x)
        }"""
    model = parser.parse_model(" ".join(text.split()))
    words = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(words, "words"))
    given = {"ids": np.arange(5)[None], "mask": np.array([[1, 0, other, 1, 1]])}
    with np.errstate(over="ignore"):
        expected = ReferenceEvaluator(model).run(None, given)[0]
    for layers in (None, "all"):
        ex = pylrp.load(model).explain(given, (0, 1), composite=composite, layers=layers)
        np.testing.assert_allclose(ex.output, expected, rtol=1e-5, atol=1e-6)
        assert np.isfinite(ex.relevance).all()
    with pytest.raises(NotFinite):  # the file adds +inf
        pylrp.load(model).explain({**given, "mask": np.full((1, 5), 3)}, (0, 1))


def test_lengths(net):
    for length in (1, PLACES):
        ex = net.explain({"ids": ids(2, length), "mask": np.ones((2, length), int)}, 0)
        assert ex.relevance.shape == (2, length)
    with pytest.raises(ValueError, match="empty"):
        net.explain({"ids": ids(2, 0), "mask": np.ones((2, 0), int)}, 0)
    for length in (PLACES + 1, 3 * PLACES):
        with pytest.raises(UnfitLength, match=f"at most {PLACES}") as caught:
            net.explain({"ids": ids(2, length), "mask": np.ones((2, length), int)}, 0)
        assert (caught.value.length, caught.value.bound) == (length, PLACES)
    kept = {"ids": ids(2, length)[:, :PLACES], "mask": np.ones((2, PLACES), int)}  # the way out
    assert net.explain(kept, 0).relevance.shape == (2, PLACES)


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
