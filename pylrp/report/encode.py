"""Arrays as compact text for an HTML page; ``input_display.py``, ``ledger_and_layers.py`` and ``page.py`` use it.

The page colours the maps itself, so that contrast can be changed there: it gets numbers, not pictures of them.
"""

from __future__ import annotations

import base64
import hashlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["block_sum", "digest", "packed", "png", "short"]

Array = NDArray[Any]


def short(value: float) -> float:
    """Return a number with six significant digits: what a page can show, and no more."""
    return float(f"{float(value):.6g}")


def packed(values: Array) -> dict[str, Any]:
    """Return an array as ``{"shape", "scale", "data"}``: int16, little-endian, base64.

    A value is ``scale * integer``; it is off by at most 1/65534 of the largest magnitude.
    """
    largest = float(np.abs(values).max(initial=0.0))
    scale = largest / 32767 if largest > 1e-300 else 1.0  # what is smaller can't be divided precisely, and is 0
    integers = np.rint(np.asarray(values, np.float64) / scale).astype("<i2")
    return {"shape": list(values.shape), "scale": scale, "data": base64.b64encode(integers.tobytes()).decode("ascii")}


def block_sum(plane: Array, most: int) -> tuple[Array, int]:
    """Return a map of (height, width) summed over blocks of n × n, and the least n that leaves at most ``most`` a side.

    The sum of the map stays what it was; blocks at the lower and the right edge may be smaller.
    """
    n = -(-max(plane.shape) // most)
    if n == 1:
        return plane, 1
    rows = np.add.reduceat(plane, np.arange(0, plane.shape[0], n), axis=0)
    return np.add.reduceat(rows, np.arange(0, plane.shape[1], n), axis=1), n


def png(pixels: Array, most: int = 1024) -> str:
    """Return uint8 pixels, (height, width) or (height, width, 3 or 4), as a data URI, at most ``most`` a side.

    Raises
    ------
    ImportError
        If pillow is not installed; the message says how to get it.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("pictures in a report need pillow: pip install pillow") from error
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((most, most))  # keeps the proportions, never enlarges
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def digest(array: Array) -> str:
    """Return the SHA-256 of an array's bytes in C order, by which equal inputs are recognised."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
