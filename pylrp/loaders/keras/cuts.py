"""What Keras cuts off the ends of a transposed convolution's output; ``keras/layers.py`` calls in."""

from __future__ import annotations

import re

__all__ = ["cut", "cuts_as_torch"]

#: The version that cuts on torch as it does on other backends.
_ALIKE = (3, 15)


def cuts_as_torch() -> bool:
    """Tell whether Keras hands the cuts on to torch, which takes the same padding at both ends."""
    import keras

    version = tuple(int(n) for n in re.findall(r"\d+", keras.__version__)[:2])
    return keras.backend.backend() == "torch" and version < _ALIKE


def cut(
    kernel: int, stride: int, dilation: int, padding: str, extra: int | None, *, torch: bool = False
) -> tuple[int, int]:
    """Return what Keras cuts off the full output's ends along one axis; negative: what it adds.

    Parameters
    ----------
    kernel, stride, dilation : int
    padding : {"same", "valid"}
    extra : int or None
        The layer's output padding.
    torch : bool
        Where the total is odd, cut the larger half off before the output, as Keras before 3.15 does on torch.
    """
    reach = (kernel - 1) * dilation + 1
    if padding == "valid":
        return 0, -(max(stride - reach, 0) if extra is None else extra)
    # The output is stride times the input, or with an explicit output padding as if its kernel were 1 or 2.
    total = reach - stride if extra is None else reach - reach % 2 - extra
    if torch:
        low = max(total // 2 + total % 2, 0)
        return low, total - low
    # Of the padding around the stretched input, an odd one lies before it.
    whole = 2 * (reach - 1) - total
    low = reach - 1 - min(whole // 2 + whole % 2, reach - 1)
    return low, total - low
