"""Taps and places of resizes, against interpolation written here."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from pylrp import layers as L


def value_at(position: float, values: Any) -> float:
    """Return linear interpolation between whole positions, constant beyond the ends."""
    return float(np.interp(position, np.arange(len(values)), values))


@pytest.mark.parametrize(
    ("coordinates", "position"),
    [
        ("half_pixel", lambda i, n, m: (i + 0.5) * n / m - 0.5),
        ("pytorch_half_pixel", lambda i, n, m: (i + 0.5) * n / m - 0.5 if m > 1 else 0),
        ("half_pixel_symmetric", lambda i, n, m: (i + 0.5) * n / m - 0.5),  # differs for scales only
        ("align_corners", lambda i, n, m: i * (n - 1) / (m - 1) if m > 1 else 0),
        ("asymmetric", lambda i, n, m: i * n / m),
    ],
)
@pytest.mark.parametrize("size", [(4, 7), (2, 1), (3, 5), (6, 10)])
def test_linear_taps(coordinates: str, position: Any, size: tuple[int, int], rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 5))
    resize = L.Resize(size=size, mode="linear", coordinates=coordinates)
    index, weight = resize.taps(x.shape)
    assert index.shape[1] <= 4
    np.testing.assert_allclose(weight.sum(1), 1, rtol=1e-14)
    got = (x.ravel()[index] * weight).sum(1).reshape(resize.output_shape(x.shape))
    for c, i, j in np.ndindex(got.shape):
        rows = [value_at(position(j, 5, size[1]), row) for row in x[c]]
        assert got[c, i, j] == pytest.approx(value_at(position(i, 3, size[0]), rows), abs=1e-12)
    with pytest.raises(ValueError, match="use taps"):
        resize.move(np.zeros(x.shape, np.int64))


def test_nearest_taps_are_the_move(rng: np.random.Generator) -> None:
    resize = L.Resize(size=(5, 2))
    index, weight = resize.taps((2, 3, 4))
    np.testing.assert_array_equal(index[:, 0], resize.move(np.arange(24).reshape(2, 3, 4)).ravel())
    assert (weight == 1).all()


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        ("round_prefer_floor", [0, 0, 1, 1, 2, 2]),
        ("round_prefer_ceil", [0, 1, 1, 2, 2, 2]),
        ("floor", [0, 0, 1, 1, 2, 2]),
        ("ceil", [0, 1, 1, 2, 2, 2]),
    ],
)
def test_rounding_to_the_nearest(rounding: str, expected: list[int]) -> None:
    resize = L.Resize(scales=(2,), coordinates="asymmetric", nearest=rounding)
    assert resize.move(np.arange(3).reshape(1, 3)).ravel().tolist() == expected


def test_a_factor_in_single_precision_meets_whole_places() -> None:
    for n, m in itertools.product(range(1, 30), range(1, 60)):
        scale = float(np.float32(m) / np.float32(n))
        resize = L.Resize(scales=(scale,), coordinates="asymmetric", nearest="floor")
        if resize.output_shape((1, n)) == (1, m):  # single precision may fall short of it
            assert resize.move(np.arange(n).reshape(1, n)).ravel().tolist() == [i * n // m for i in range(m)]
