"""Every fast path of the convolution that is built runs for some network, by the core's own counts.

The numbers are compared elsewhere: tests/cpp/test_conv_paths.cpp has each path beside a reference, with and without it.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import pylrp
from pylrp import _core
from pylrp.layers import Conv, Layer, MaxPool, ReLU

FAST = {
    "by_contribution",
    "positions_in_lanes",
    "fused_1x1_forward",
    "fused_1x1",
    "signs_by_magnitude",
    "signs_by_magnitude_cancelled",
    "depthwise",
    "depthwise_lines",
    "depthwise_lines_forward",
    "pack_in_tasks",
    "output_as_sum",
    "one_of_four",
    "sum_by_subtraction",
    "sum_by_subtraction_cancelled",
    "taps_by_magnitude",
    "taps_by_magnitude_cancelled",
    "few_input_channels",
    "uniform_weights",
}
GENERAL = {"forward", "product", "shares", "backward"}
EPSILON, Z_PLUS, ALPHA_BETA, FLAT = pylrp.Epsilon(), pylrp.ZPlus(), pylrp.AlphaBeta(2, 1), pylrp.Flat()


def weights(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def image(channels: int, size: int) -> NDArray[np.float32]:
    return np.random.default_rng(2).normal(size=(1, channels, size, size)).astype(np.float32)


def runs(layers: list[Layer], x: NDArray[np.float32], rule: pylrp.Rule) -> set[str]:
    """Return the paths that ran while a network explained its top values' sum."""
    network = pylrp.Network(layers, input_shape=x.shape[1:])
    top = np.ones_like(network.forward(x))
    before = _core.conv_path_counts()
    network.explain(x, target=top, composite=pylrp.Composite("one", rule))
    return {name for name, count in _core.conv_path_counts().items() if count > before[name]}


CASES: list[tuple[list[Layer], NDArray[np.float32], pylrp.Rule, set[str]]] = [
    ([Conv(weights(9, 5, 1, 1))], image(5, 22), Z_PLUS, {"fused_1x1_forward", "fused_1x1"}),
    ([Conv(weights(150, 130, 1, 1))], image(130, 7), FLAT, {"positions_in_lanes", "uniform_weights"}),
    ([Conv(weights(9, 17, 1, 1))], image(17, 6), ALPHA_BETA, {"fused_1x1", "signs_by_magnitude"}),
    (
        [Conv(abs(weights(9, 17, 1, 1)))],
        np.append(-(image(17, 6)[:, :, :1] ** 2), image(17, 6)[:, :, 1:] ** 2, axis=2),
        ALPHA_BETA,
        {"fused_1x1", "signs_by_magnitude", "signs_by_magnitude_cancelled"},
    ),
    (
        [Conv(weights(7, 1, 3, 3), groups=7)],
        image(7, 6),
        Z_PLUS,
        {"depthwise_lines_forward", "depthwise", "shares", "backward"},
    ),
    (
        [Conv(weights(7, 1, 5, 5), groups=7)],
        image(7, 9) ** 2,
        Z_PLUS,
        {"depthwise_lines_forward", "depthwise_lines"},
    ),
    ([Conv(weights(65, 9, 3, 3))], image(9, 12) ** 2, Z_PLUS, {"pack_in_tasks", "product"}),
    ([Conv(weights(9, 5, 3, 3))], image(5, 6), EPSILON, {"output_as_sum", "product", "backward"}),
    (
        [Conv(weights(9, 5, 3, 3)), ReLU(), Conv(weights(4, 9, 2, 2))],
        image(5, 9) ** 2,
        ALPHA_BETA,
        {"sum_by_subtraction"},
    ),
    ([Conv(weights(33, 40, 3, 3)), ReLU(), MaxPool(2)], image(40, 10) ** 2, Z_PLUS, {"one_of_four"}),
    (
        [Conv(weights(40, 16, 1, 1), np.full(40, -4, np.float32)), ReLU(), Conv(abs(weights(4, 40, 1, 1)))],
        image(16, 6),
        Z_PLUS,
        {"by_contribution"},
    ),
    (
        [Conv(abs(weights(9, 5, 3, 3))), ReLU(), Conv(weights(4, 9, 2, 2))],
        image(5, 9) ** 2,
        ALPHA_BETA,
        {"sum_by_subtraction", "sum_by_subtraction_cancelled", "shares"},
    ),
    ([Conv(weights(9, 9, 3, 3), stride=2)], image(9, 9), ALPHA_BETA, {"taps_by_magnitude"}),
    ([Conv(weights(9, 9, 3, 3)), ReLU(), Conv(weights(4, 9, 2, 2))], image(9, 9), Z_PLUS, {"taps_by_magnitude"}),
    (
        [Conv(abs(weights(9, 9, 3, 3)))],
        np.append(-(image(9, 9)[:, :, :4] ** 2), image(9, 9)[:, :, 4:] ** 2, axis=2),
        ALPHA_BETA,
        {"taps_by_magnitude", "taps_by_magnitude_cancelled", "shares"},
    ),
    ([Conv(weights(64, 1, 3, 3))], image(1, 6) ** 2, Z_PLUS, {"few_input_channels"}),
    ([Conv(weights(9, 3, 3, 3), stride=2)], image(3, 9), Z_PLUS, {"by_contribution"}),
    ([Conv(weights(9, 5, 3, 3))], image(5, 6), FLAT, {"uniform_weights"}),
    ([Conv(weights(9, 5, 3, 3), padding=1)], image(5, 6) ** 2, Z_PLUS, GENERAL),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "+".join(sorted(case[3])))
def test_paths_that_run(case: tuple[list[Layer], NDArray[np.float32], pylrp.Rule, set[str]]) -> None:
    layers, x, rule, expected = case
    if expected in ({"one_of_four"}, {"by_contribution"}) and pylrp.info()["isa"] not in ("avx2", "avx512"):
        pytest.skip("no instruction for it")
    ran = runs(layers, x, rule)
    assert expected <= ran
    assert ran - expected <= GENERAL | {"fused_1x1_forward", "pack_in_tasks"}


def test_every_path_has_a_case() -> None:
    assert set().union(*(case[3] for case in CASES)) == FAST | GENERAL
    assert set(_core.conv_path_counts()) == FAST | GENERAL
