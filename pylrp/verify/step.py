"""A node of a model file as ``program.py`` reads it and the tables of operators take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylrp.errors import UnsupportedLayer

__all__ = ["Array", "Step", "setting"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Step:
    """A node of the file.

    Attributes
    ----------
    name : str
        The node's own, or the first value that it makes.
    op : str
        The operator, with its domain where that is not ONNX's own.
    inputs, outputs : tuple of str
        Names of values; "" for an optional one that is not given.
    attributes : mapping of str to object
    opset : int
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute; text as str."""
        found = self.attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else found

    def refuse(self, reason: str) -> UnsupportedLayer:
        """Return the error for what the check has no formula for."""
        return UnsupportedLayer(self.name, self.op, reason, "this part of the model can't be verified")


def setting(value: Any) -> Any:
    """Return the decimal numbers that attributes in single precision stand for: 0.1, not 0.10000000149."""
    if isinstance(value, list):
        return [setting(each) for each in value]
    return float(str(np.float32(value))) if isinstance(value, float) else value
