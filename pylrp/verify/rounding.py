"""What single precision alone does to a file's values. ``against.py`` compares them with those in double precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from pylrp.verify.program import Array, Program

__all__ = ["in_single"]

#: How often rounding is measured: how far a sum that nearly cancels is off is a matter of luck.
_DRAWS = 3


def in_single(
    program: Program, given: Mapping[str, Array], rounded: Mapping[str, Array] | None = None
) -> Iterator[dict[str, Array]]:
    """Yield the values of a file in single precision, more than once, of inputs that differ by rounding.

    ``rounded``: what quantised values are where they lie between two numbers. Default: either of them, by chance.
    """
    rng = np.random.default_rng(0)
    for _ in range(_DRAWS):
        near = {
            name: array * (1 + rng.uniform(-1, 1, array.shape) * np.finfo(np.float32).eps)
            if array.dtype.kind == "f"
            else array
            for name, array in given.items()
        }
        yield program.run(near, dtype=np.float32, rounded=rounded, shaken=rng if rounded is None else None)
