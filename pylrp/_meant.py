"""The number that a constant in single precision stands for, for who computes in double precision.

Exporters write 1 / sqrt(32) or 1e-5 as the nearest float32, each at another place of the formula. ``loaders/onnx`` and
``verify`` read a file's single numbers through :func:`meant`, so that one network is one network in float64, too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["meant", "meant_product"]

#: Of whole numbers up to this one, roots are looked for: widths, numbers of heads and of groups.
_MOST = 4096
_DIGITS = 6
_OF_A_SCALE = 3  # digits
#: Among them those of SELU.
_OTHERS = (
    *(math.sqrt(2 / math.pi), math.sqrt(math.pi / 2), 1 / math.pi, math.pi),
    *(math.log(2), math.e, 1.6732632423543772, 1.0507009873554805),
)


def meant(array: NDArray[Any]) -> NDArray[Any]:
    """Return a single number of float32 as the float64 that it stands for; any other array as it is.

    That is a short decimal, n, 1 / n, a square or fourth root of one of them for a whole n up to 4096, a root of a
    decimal of three digits, or one of a few constants, if its nearest float32 is the given number. Else it is the
    number itself.
    """
    if array.size != 1 or array.dtype != np.float32:
        return array
    value = np.float32(array.ravel()[0])
    return np.full(array.shape, _meant(value), np.float64)


def meant_product(factor: np.float32) -> NDArray[Any]:
    """Return what a factor stands for that may have been multiplied out of two, in single precision."""
    near = (factor, np.nextafter(factor, np.float32(0)), np.nextafter(factor, np.float32(np.inf) * np.sign(factor)))
    found = ((number, meant(np.asarray(number))) for number in near)
    return next((made for number, made in found if float(made) != float(number)), np.asarray(factor, np.float64))


def _meant(value: np.float32) -> float:
    size = abs(float(value))
    if not size or not math.isfinite(size):
        return float(value)
    text = str(value)
    if len(text.partition("e")[0].replace(".", "").strip("-0")) <= _DIGITS:
        return float(text)
    for power in (1, 2, 4):
        for sign in (1, -1):
            n = round(min(size ** (sign * power), 2.0 * _MOST))
            root = math.sqrt(n) if power == 2 else math.sqrt(math.sqrt(n)) if power == 4 else float(n)
            if 1 <= n <= _MOST and np.float32(root**sign) == abs(value):
                return math.copysign(root**sign, value)
    root = math.sqrt(float(f"{min(size, _MOST) ** 2:.{_OF_A_SCALE}g}"))
    found = [number for number in (root, *_OTHERS) if np.float32(number) == abs(value)]
    return math.copysign(found[0], value) if found else float(value)
