"""ONNX's short-time Fourier transform: a convolution whose kernels are cosines and sines under the window.

``onnx/operators.py`` has the table of operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.layers import Conv, Reshape, Transpose
from pylrp.loaders.onnx.node import Call, Value

__all__ = ["TRANSFORMS"]


def _stft(call: Call) -> Value:
    """Frames by frequencies by real and imaginary part: ``X[m, k] = sum_n w[n] x[m step + n] e^(-2 pi i k n / N)``."""
    value = call.value()
    shape = value.shape
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
        raise call.unsupported(f"takes a signal of shape {shape}, complex or of several channels")
    window = call.constant(2)
    given = call.constant(3)
    length = int(given.reshape(())) if given is not None else len(window) if window is not None else 0
    step = call.constant(1)
    if step is None or length < 1 or length > shape[0] or (window is not None and window.shape != (length,)):
        raise call.broken(f"has no frames of length {length} in a signal of {shape[0]} numbers")
    count = length // 2 + 1 if call.attribute("onesided", 1) else length
    kernels = _waves(length, count)
    if window is not None:
        kernels = kernels * np.asarray(window, np.float64)
    weight = kernels.reshape(2 * count, 1, length).astype(call.translation.constants.dtype)
    value = call.emit(Reshape((1, shape[0])), value, part="signal")
    value = call.emit(Conv(weight, stride=int(step.reshape(()))), value, part="waves")
    frames = value.shape[1]
    return call.emit(Reshape((frames, count, 2)), call.emit(Transpose((1, 0)), value, part="frames"))


def _waves(length: int, count: int) -> NDArray[Any]:
    """Return cosines and negative sines, (count, 2, length); angles below 2 pi, as exact as can be."""
    turns = np.outer(np.arange(count), np.arange(length)) % length
    angles = 2 * np.pi * turns / length
    return np.stack([np.cos(angles), -np.sin(angles)], axis=1)


TRANSFORMS: dict[str, Callable[[Call], Value]] = {"STFT": _stft}
