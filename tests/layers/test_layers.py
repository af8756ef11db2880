"""Layers as values: shapes, windows of pools, moved indices, and what is refused; `test_resize.py` has taps of resizes.

Windows and moves are compared with loops written here; what layers compute is in
`network/test_graph_reference.py`.
"""

from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pylrp
from pylrp import layers as L


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (L.Dense(ones(3, 4)), (4,), (3,)),
        (L.Conv(ones(8, 3, 3, 3)), (3, 7, 9), (8, 5, 7)),
        (L.Conv(ones(8, 3, 3, 3), stride=2, padding=1), (3, 7, 8), (8, 4, 4)),
        (L.Conv(ones(8, 1, 5), padding=((0, 3),), dilation=2, groups=2), (2, 9), (8, 4)),
        (L.Conv(ones(2, 1, 2, 2, 2)), (1, 4, 5, 6), (2, 3, 4, 5)),
        (L.Conv(ones(2, 1, 3, 3), stride=2, padding="same_upper"), (1, 5, 6), (2, 3, 3)),
        (L.Conv(ones(2, 1, 3, 3), padding="valid"), (1, 5, 6), (2, 3, 4)),
        (L.ConvTranspose(ones(4, 2, 3, 3), stride=2, padding=1, output_padding=1, groups=2), (4, 5, 5), (4, 10, 10)),
        (L.ConvTranspose(ones(4, 2, 3), dilation=2, padding=((1, 0),)), (4, 5), (2, 8)),
        (L.MaxPool(2), (3, 7, 7), (3, 3, 3)),
        (L.MaxPool(2, ceil_mode=True), (3, 7, 7), (3, 4, 4)),
        (L.MaxPool(3, 2, 1), (3, 9), (3, 5)),
        (L.MaxPool(2, 2, 1, ceil_mode=True), (1, 3), (1, 2)),  # a third window would begin in the padding
        (L.AveragePool([2, 3], 1), (1, 4, 4), (1, 3, 2)),
        (L.AveragePool(3, 2, "same_lower"), (1, 4, 5), (1, 2, 3)),
        (L.GlobalAveragePool(), (5, 4, 3), (5, 1, 1)),
        (L.GlobalMaxPool(), (5, 4), (5, 1)),
        (L.AdaptiveAveragePool(2), (5, 7, 3), (5, 2, 2)),
        (L.AdaptiveMaxPool((None, 1)), (5, 7, 3), (5, 7, 1)),
        (L.BatchNorm(*[ones(3)] * 4), (3, 4, 4), (3, 4, 4)),
        (L.Affine(2.0, ones(3, 1, 1)), (3, 4, 4), (3, 4, 4)),
        (L.PReLU(ones(3)), (3, 4, 4), (3, 4, 4)),
        (L.Flatten(), (3, 4, 5), (60,)),
        (L.Flatten(1), (3, 4, 5), (3, 20)),
        (L.Reshape((5, -1)), (3, 4, 5), (5, 12)),
        (L.Transpose((2, 0, 1)), (3, 4, 5), (5, 3, 4)),
        (L.Pad(((0, 0), (1, 2), (-1, 0))), (3, 4, 5), (3, 7, 4)),
        (L.Slice([1], [-1], [1], [2]), (3, 8), (3, 3)),
        (L.Take([2, 0], 0), (3, 8), (2, 8)),
        (L.Take(1, 0), (3, 8), (8,)),
        (L.Expand((3, 4)), (3, 1), (3, 4)),
        (L.Upsample((2, 3)), (1, 4, 5), (1, 8, 15)),
        (L.DepthToSpace(2), (8, 3, 4), (2, 6, 8)),
        (L.SpaceToDepth(2), (2, 6, 8), (8, 3, 4)),
        (L.ChannelShuffle(2), (6, 3), (6, 3)),
        (L.Resize(size=(5, 6)), (2, 3, 3), (2, 5, 6)),
        (L.Resize(scales=(5 / 3, 0.5)), (2, 3, 3), (2, 5, 1)),
        (L.Resize(scales=(2,), axes=(0,), mode="linear"), (2, 3), (4, 3)),
        (L.Softmax(-1), (4, 3), (4, 3)),
        (L.LocalResponseNorm(5), (4, 3, 3), (4, 3, 3)),
        (L.ReLU(), (), ()),
    ],
    ids=repr,
)
def test_shapes(layer: L.Layer, shape: L.Shape, expected: L.Shape) -> None:
    assert layer.output_shape(shape) == expected
    with pytest.raises(ValueError, match="takes 1 input, got 2"):
        layer.output_shape(shape, shape)


@pytest.mark.parametrize(
    ("layer", "shapes", "message"),
    [
        (L.Dense(ones(3, 4)), [(5,)], r"weight is \(3, 4\), its input has 5 features"),
        (L.Dense(ones(3, 4)), [(4, 1)], r"its input has shape \(4, 1\): put a Flatten before"),
        (L.Dense(ones(3, 4), ones(4)), [(4,)], r"bias has shape \(4,\), its weight is \(3, 4\)"),
        (L.Dense(ones(3)), [(4,)], r"weight has shape \(3,\), expected \(n_out, n_in\)"),
        (L.Conv(ones(2, 3, 3, 3)), [(4, 5, 5)], r"takes 3 channels, its input \(4, 5, 5\) has 4"),
        (L.Conv(ones(2, 3, 3, 3), groups=2), [(4, 5, 5)], "in 2 groups and takes 6 channels"),
        (L.Conv(ones(2, 3, 3, 3)), [(3, 5)], r"expected \(channels, height, width\)"),
        (L.Conv(ones(2, 3, 3, 3)), [(3, 5, 2)], r"the kernel spans 3, its input 2 with padding 0 \+ 0"),
        (L.ConvTranspose(ones(2, 3, 3), padding=2), [(2, 1)], "nothing of the output is left"),
        (L.MaxPool(2, 2, 2), [(1, 4)], r"window 0 lies in the padding \(2, 2\) of an input of size 4 entirely"),
        (L.MaxPool((2, 2)), [(1, 4)], "kernel has 2 entries, the layer has 1 spatial axes"),
        (L.MaxPool(2), [(4,)], "expected channels and 1 to 3 spatial axes"),
        (L.AdaptiveAveragePool((2, 2)), [(1, 4)], "size has 2 entries, the input .* has 1 spatial axes"),
        (L.AdaptiveAveragePool(0), [(1, 4)], "size is 0, expected at least 1"),
        (L.BatchNorm(*[ones(3)] * 4), [(4, 2)], r"scale has shape \(3,\), the input is \(4, 2\)"),
        (L.BatchNorm(ones(3), ones(3), ones(3), -ones(3)), [(3,)], "not positive everywhere"),
        (L.Affine(ones(3)), [(3, 4)], r"scale has shape \(3,\), which does not broadcast to the input \(3, 4\)"),
        (L.PReLU(ones(3)), [(4, 4)], r"the input \(4, 4\) has 4 channels"),
        (L.Add(), [(3,)], "2 or more inputs, got 1"),
        (L.Add(), [(3,), (1,)], r"got \(3,\) and \(1,\): use Expand"),
        (L.Concat(), [], "got 0"),
        (L.Concat(1), [(3,)], "axis is 1, the inputs have 1 axes"),
        (L.Concat(0), [(3, 4), (3, 5)], "can't join"),
        (L.Flatten(2), [(3, 4)], "axis is 2, the input has 2 axes"),
        (L.Reshape((5, -1)), [(3, 4)], r"the input \(3, 4\) has 12 values, they don't fit into \(5, -1\)"),
        (L.Transpose((1, 0)), [(3,)], r"permutation is \(1, 0\), the input has shape \(3,\)"),
        (L.Pad(((0, 0),)), [(3, 4)], r"1 pairs, the input has shape \(3, 4\)"),
        (L.Pad(((-2, -2),)), [(3,)], "leave nothing"),
        (L.Pad(((0, 0), (1, 1)), value=np.zeros((2, 1))), [(3, 4)], r"value has shape \(2, 1\)"),
        (L.Slice([2], [1]), [(3,)], "keeps nothing"),
        (L.Take([3], 0), [(3,)], "from -3 to 2"),
        (L.Expand((3,)), [(2,)], r"the input \(2,\) does not broadcast to \(3,\)"),
        (L.DepthToSpace(2), [(6, 1, 1)], "6 channels can't be divided by 4"),
        (L.SpaceToDepth(2), [(6, 3, 2)], "3 x 2 can't be divided"),
        (L.SpaceToDepth(2), [(6, 3)], "takes .channels, height, width."),
        (L.ChannelShuffle(4), [(6, 3)], "can't be divided"),
        (L.Resize(size=(2,)), [(1, 2, 2)], "size has 1 entries for axes"),
        (L.Resize(scales=(0.1,)), [(1, 2)], "nothing of the input"),
        (L.Softmax(2), [(3,)], "axis is 2"),
        pytest.param(L.CustomLayer(), [(3,)], "CustomLayer does not define output_shape", id="CustomLayer"),
    ],
    ids=repr,
)
def test_wrong_inputs(layer: L.Layer, shapes: list[L.Shape], message: str) -> None:
    with pytest.raises((ValueError, NotImplementedError), match=message):
        layer.output_shape(*shapes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L.Conv(ones(2, 3)), r"weight has shape \(2, 3\)"),
        (lambda: L.Conv(ones(3, 2, 3), groups=2), "groups is 2"),
        (lambda: L.Conv(ones(2, 2, 3), ones(3)), r"bias has shape \(3,\), weight \(2, 2, 3\) gives 2 output channels"),
        (lambda: L.Conv(ones(2, 2, 3), stride=0), "stride is 0, expected at least 1"),
        (lambda: L.Conv(ones(2, 2, 3), stride=1.5), "stride is 1.5, expected whole numbers"),
        (lambda: L.Conv(ones(2, 2, 3), stride=(1, 1)), "stride has 2 entries, the layer has 1 spatial axes"),
        (lambda: L.Conv(ones(2, 2, 3), padding="same"), "padding is 'same', expected numbers or one of same_upper"),
        (lambda: L.Conv(ones(2, 2, 3), padding=((1, 2), (1, 2))), "expected a pair .* for each of 1 spatial axes"),
        (lambda: L.Conv(ones(2, 2, 3), padding=((-1, 0),)), "expected at least 0"),
        (lambda: L.ConvTranspose(ones(2, 2, 3), padding="same_upper"), "a transposed convolution takes numbers"),
        (lambda: L.Clip(2, 1), "low is 2, high is 1"),
        (lambda: L.Reshape((-1, -1)), "at most one -1"),
        (lambda: L.Transpose((0, 2)), "each of 0 to n - 1 once"),
        (lambda: L.Pad([(0, 0)], "mirror"), "mode is 'mirror'"),  # type: ignore[arg-type]
        (lambda: L.Slice([0], [1, 2]), "stops has 2 entries, starts has 1"),
        (lambda: L.Slice([0], [1], None, [0]), "expected no 0"),
        (lambda: L.DepthToSpace(2, "RCD"), "mode is 'RCD'"),  # type: ignore[arg-type]
        (lambda: L.Resize(), "give size or scales"),
        (lambda: L.Resize(size=(0,)), "expected more than 0"),
        (lambda: L.Resize(size=(1,), mode="cubic"), "mode is 'cubic'"),  # type: ignore[arg-type]
        (lambda: L.Resize(size=(1,), coordinates="tf_crop_and_resize"), "coordinates is 'tf_crop_and_resize'"),
    ],
)
def test_wrong_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_one_number_serves_all_axes() -> None:
    conv = L.Conv(ones(2, 3, 3, 5), stride=2, padding=(0, 1), dilation=(1, 2))
    assert (conv.stride, conv.padding, conv.dilation) == ((2, 2), ((0, 0), (1, 1)), (1, 2))
    assert conv.kernel == (3, 5)
    assert conv.channels == (3, 2)
    assert L.ConvTranspose(ones(4, 3, 2), groups=2).channels == (4, 6)
    assert L.Conv(ones(1, 1, 2, 2), padding="same_upper").pads((1, 4, 4)) == ((0, 1), (0, 1))
    assert L.Conv(ones(1, 1, 2, 2), padding="same_lower").pads((1, 4, 4)) == ((1, 0), (1, 0))


def test_layers_print_what_differs() -> None:
    assert repr(L.Conv(ones(2, 3, 3, 3))) == "Conv((2, 3, 3, 3))"
    assert repr(L.Conv(ones(2, 3, 3), ones(2), padding=1)) == "Conv((2, 3, 3), bias, padding=((1, 1),))"
    assert repr(L.Conv(ones(1, 1, 3), padding="same_upper")) == "Conv((1, 1, 3), padding='same_upper')"
    assert repr(L.BatchNorm(*[ones(3)] * 4)) == "BatchNorm((3,), epsilon=1e-05)"
    assert repr(L.Affine(2, ones(3, 1, 1))) == "Affine(2, (3, 1, 1))"


def test_batch_norm_as_scale_and_shift(rng: np.random.Generator) -> None:
    scale, shift, mean = rng.standard_normal((3, 5)).astype(np.float32)
    variance = rng.uniform(0.1, 2, 5).astype(np.float32)
    factor, added = L.BatchNorm(scale, shift, mean, variance, 1e-3).affine()
    x = rng.standard_normal(5)
    np.testing.assert_allclose(x * factor + added, (x - mean) / np.sqrt(variance + 1e-3) * scale + shift, rtol=1e-5)
    assert factor.dtype == added.dtype == np.float32


@given(
    size=st.integers(1, 12),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    pads=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    ceil_mode=st.booleans(),
    include_pad=st.booleans(),
)
def test_windows_against_a_loop(
    size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int], ceil_mode: bool, include_pad: bool
) -> None:
    reach = (kernel - 1) * dilation + 1
    # What a window may reach beyond the padding's end: less than a step, so that nothing is left out.
    beyond = stride - 1 if ceil_mode else 0
    starts = [s for s in range(-pads[0], size + pads[1] + stride, stride) if s + reach <= size + pads[1] + beyond]
    if ceil_mode and starts and starts[-1] >= size:
        starts.pop()
    windows = [range(start, start + reach, dilation) for start in starts]
    expected = [[tap for tap in window if 0 <= tap < size] for window in windows]
    divisors = [
        sum(tap < size + pads[1] for tap in window) if include_pad else len(inside)
        for window, inside in zip(windows, expected, strict=True)
    ]
    pool = L.AveragePool(kernel, stride, [pads], dilation, ceil_mode, count_include_pad=include_pad)
    if not expected or not all(expected):
        with pytest.raises(ValueError, match=r"the kernel spans|entirely"):
            pool.windows((1, size))
        return
    (axis,) = pool.windows((1, size))
    assert [list(range(b, e, axis.step)) for b, e in zip(axis.begin, axis.end, strict=True)] == expected
    assert axis.divisor.tolist() == divisors
    assert pool.output_shape((1, size)) == (1, len(expected))


def test_adaptive_windows_cover_the_input() -> None:
    (axis,) = L.AdaptiveAveragePool(3).windows((1, 7))
    assert list(zip(axis.begin, axis.end, axis.divisor, strict=True)) == [(0, 3, 3), (2, 5, 3), (4, 7, 3)]


INDEX = np.arange(2 * 4 * 6).reshape(2, 4, 6)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (L.Flatten(), INDEX.ravel()),
        (L.Flatten(1), INDEX.reshape(2, 24)),
        (L.Reshape((6, -1)), INDEX.reshape(6, 8)),
        (L.Transpose((2, 0, 1)), INDEX.transpose(2, 0, 1)),
        (L.Pad([(0, 0), (1, 0), (-2, 1)]), np.pad(INDEX[:, :, 2:], [(0, 0), (1, 0), (0, 1)], constant_values=-1)),
        (L.Pad([(0, 0), (1, 2), (3, 0)], "reflect"), np.pad(INDEX, [(0, 0), (1, 2), (3, 0)], "reflect")),
        (L.Pad([(0, 0), (1, 2), (3, 0)], "edge"), np.pad(INDEX, [(0, 0), (1, 2), (3, 0)], "edge")),
        (L.Pad([(0, 0), (1, 2), (3, 0)], "wrap"), np.pad(INDEX, [(0, 0), (1, 2), (3, 0)], "wrap")),
        (L.Slice([1, -3], [99, 99], [1, 2]), INDEX[:, 1:, -3:]),
        (L.Slice([-1], [-99], [2], [-2]), INDEX[:, :, ::-2]),
        (L.Slice([0], [1]), INDEX[:1]),
        (L.Take([[3, 0], [1, -1]], 1), INDEX[:, [[3, 0], [1, -1]]]),
        (L.Expand((3, 2, 4, 6)), np.broadcast_to(INDEX, (3, 2, 4, 6))),
        (L.Upsample((1, 3)), INDEX.repeat(3, axis=2)),
        (L.Upsample(2), INDEX.repeat(2, axis=1).repeat(2, axis=2)),
        (L.ChannelShuffle(2), INDEX),
        (L.Resize(scales=(2, 2)), INDEX.repeat(2, axis=1).repeat(2, axis=2)),
        (L.Resize(scales=(0.5, 0.5), coordinates="asymmetric", nearest="floor"), INDEX[:, ::2, ::2]),
        (L.Resize(size=(2,), axes=(-1,), coordinates="align_corners"), INDEX[:, :, [0, 5]]),
    ],
    ids=repr,
)
def test_moves(layer: Any, expected: Any) -> None:
    np.testing.assert_array_equal(layer.move(INDEX), expected)
    assert layer.output_shape(INDEX.shape) == expected.shape


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@pytest.mark.parametrize("shape", [(2, 4, 6), (1, 2, 3), (2, 1, 1), (5,)])
def test_pads_wider_than_the_input(mode: Any, shape: tuple[int, ...]) -> None:
    if mode == "wrap" and np.lib.NumpyVersion(np.__version__) < "1.25.0":
        pytest.skip("NumPy's own was wrong before 1.25")
    index, widths = np.arange(np.prod(shape)).reshape(shape), [(1, 0), (7, 13), (20, 5)][-len(shape) :]
    np.testing.assert_array_equal(L.Pad(widths, mode).move(index), np.pad(index, widths, mode))


def test_channels_and_pixels_change_places() -> None:
    index = np.arange(8 * 2 * 3).reshape(8, 2, 3)
    for y, x, c in itertools.product(range(4), range(6), range(2)):
        block = (y % 2) * 2 + x % 2
        assert L.DepthToSpace(2).move(index)[c, y, x] == index[block * 2 + c, y // 2, x // 2]
        assert L.DepthToSpace(2, "CRD").move(index)[c, y, x] == index[c * 4 + block, y // 2, x // 2]
    np.testing.assert_array_equal(L.SpaceToDepth(2).move(L.DepthToSpace(2).move(index)), index)
    shuffled = L.ChannelShuffle(2).move(np.arange(6))
    assert shuffled.tolist() == [0, 3, 1, 4, 2, 5]


def test_fill_is_the_constant() -> None:
    assert L.Pad([(1, 1)], value=3).fill == 3
    assert L.Pad([(1, 1)]).fill == 0
    assert L.Flatten().fill == 0


def test_activations_tell_the_core() -> None:
    assert L.ReLU().core() == ("relu", 0.0, 0.0)
    assert L.LeakyReLU(0.1).core() == ("leaky_relu", 0.1, 0.0)
    assert L.Clip(high=2).core() == ("clip", -math.inf, 2.0)
    assert L.ReLU6().core() == ("clip", 0.0, 6.0)
    assert L.HardSigmoid(0.2).core() == ("hard_sigmoid", 0.2, 0.5)
    assert L.GELU().core() == ("gelu", 0.0, 0.0)
    assert L.GELU(approximate=True).core() == ("gelu_tanh", 0.0, 0.0)
    assert L.Dropout().core() == ("identity", 0.0, 0.0)


def test_every_layer_has_a_kind_and_compares() -> None:
    found = [kind for name in L.__all__ if isinstance(kind := getattr(L, name), type) and issubclass(kind, L.Layer)]
    bases = (L.Layer, L.Activation, L.Movement, L.Pool, L.Recurrent)
    assert all(isinstance(kind.kind, str) for kind in found if kind not in bases)
    assert L.MaxPool([2, 2]) == L.MaxPool((2, 2))
    assert {L.ReLU(), L.ReLU(), L.ELU(2.0)} == {L.ELU(2.0), L.ReLU()}
    assert hash(L.Resize(size=[1, 2])) == hash(L.Resize(size=(1, 2)))


BY_CLASS = {
    "Dense": (np.ones((3, 4)),), "PositionwiseDense": (np.ones((3, 4, 1)),), "Conv": (np.ones((3, 2, 1)),),
    "ConvTranspose": (np.ones((2, 3, 1)),), "BatchNorm": (np.ones(2),) * 4, "Affine": (2.0, 1.0), "Clip": (0.0, 1.0),
    "PReLU": (0.5,), "LocalResponseNorm": (3,), "MaxPool": (2,), "AveragePool": (2,), "AdaptiveAveragePool": (2,),
    "AdaptiveMaxPool": (2,), "Reshape": ((-1,),), "Transpose": ((1, 0),), "Pad": (((0, 0), (1, 1)),),
    "Slice": ((0, 0), (1, 1)), "Take": (0, 1), "Expand": ((2, 3),), "Upsample": (2,), "DepthToSpace": (2,),
    "SpaceToDepth": (2,), "ChannelShuffle": (2,), "Resize": ((4,),), "Shift": (0.5,), "Function": ("abs(x)",),
    "LSTM": (np.ones((8, 3)), np.ones((8, 2))), "GRU": (np.ones((6, 3)), np.ones((6, 2))),
    "RNN": (np.ones((2, 3)), np.ones((2, 2))), "Quantize": (0.5,),
}  # fmt: skip
BASES = {"Activation", "CustomLayer", "Layer", "Movement", "Pool", "Recurrent", "Shape", "Windows"}


@pytest.mark.parametrize("name", sorted(set(L.__all__) - BASES))
def test_every_layer_takes_a_name(name):
    kind = getattr(L, name)
    layer = kind(*BY_CLASS.get(name, ()), name="mine")
    assert layer.name == "mine"
    assert kind(*BY_CLASS.get(name, ())).name is None
    assert pickle.loads(pickle.dumps(layer)).name == "mine"


def test_names_in_a_network(tmp_path):
    class Twice(L.CustomLayer):
        def output_shape(self, *shapes):
            return shapes[0]

        def forward(self, *inputs):
            return 2 * inputs[0]

        def relevance(self, inputs, output, relevance):
            return (relevance,)

    net = pylrp.Network([L.Dense(np.eye(4), name="a"), L.ReLU(name="f"), Twice(name="b"), L.Flatten(name="flat"),
                         L.Dense(np.eye(4))])  # fmt: skip
    assert {"a", "f", "b"} <= set(net.graph.shapes)
    ex = net.explain(np.ones((1, 4)), target=0, layers=["f", "b"])
    np.testing.assert_array_equal(ex.layers["f"], ex.layers["b"])
    saved = pylrp.Network([L.Dense(np.eye(4), name="a"), L.Tanh(name="f"), L.Dense(np.eye(4))])
    saved.save(tmp_path / "net.pylrp.npz")
    back = pylrp.load(tmp_path / "net.pylrp.npz")
    assert list(back.graph.shapes) == list(saved.graph.shapes)
    assert back.graph.nodes[1].layer == L.Tanh()
