"""Any function of one value, evaluated exactly at every call by a short program in the core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from pylrp.layers.activations import CONSTANT
from pylrp.layers.base import NamedLayer, Place, Shape, Spec, sole
from pylrp.layers.cause import Cause
from pylrp.layers.formula import OPERATIONS, Operand, Step, composed, evaluated, parsed
from pylrp.layers.scaling import one_a_channel

__all__ = ["Function"]


@dataclass(frozen=True, eq=False, repr=False)
class Function(NamedLayer):
    """Any function of one value at a time, by its formula: ``Function("x * sigmoid(1.702 * x)")``.

    The formula is computed at every call, step by step, in the network's dtype. Relevance passes where ``f(0) = 0``;
    else f(0) takes its share, as with other functions.

    Parameters
    ----------
    formula : str
        Of ``x``, with numbers, ``+ - * / **``, comparisons (which give 1 or 0), ``where(condition, a, b)``, ``min``,
        ``max``, ``abs``, ``exp``, ``log``, ``sqrt``, ``sin``, ``tanh``, ``erf``, ``sigmoid``, ``softplus``, ...
        Parts may have names: ``"v = x * x; v * exp(-v)"``.
    constants : array_like of shape (k, ...), optional
        Arrays that the formula calls ``c0``, ``c1``, ...: each broadcasts to the logical shape, as ``(C, 1, 1)`` does
        for channels.

    Raises
    ------
    ValueError
        If the formula is none, or the arrays are not those that it takes.

    Examples
    --------
    >>> import pylrp
    >>> pylrp.layers.Function("where(x > 0, x, 0.1 * x)")
    Function('where(x > 0, x, 0.1 * x)')
    """

    formula: str
    constants: ArrayLike | None = None
    kind: ClassVar[str] = "function"
    rule_kind: ClassVar[str | None] = "function"
    causes: ClassVar[tuple[Cause, ...]] = (CONSTANT,)
    arrays: ClassVar[tuple[str, ...]] = ("constants",)
    any_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Read the formula."""
        if not isinstance(self.formula, str):
            raise TypeError(f"formula is {self.formula!r}, expected a text such as 'x * sigmoid(x)'")
        _, arrays = parsed(self.formula)
        given = 0 if self.constants is None else len(np.asarray(self.constants))
        if given != arrays:
            raise ValueError(f"formula is {self.formula!r} and takes {arrays} arrays, constants has {given}")

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return the formula's steps, in the order in which they are computed."""
        return parsed(self.formula)[0]

    def __repr__(self) -> str:
        return f"Function({self.formula!r})"

    def at_zero(self) -> Any:
        """Return f(0), one number for each entry of the constants."""
        return evaluated(self.steps, 0.0, () if self.constants is None else np.asarray(self.constants, np.float64))

    def then(self, outer: Function) -> Function:
        """Return the function that applies another one to what this one gives."""
        arrays = [np.asarray(array) for each in (self, outer) if each.constants is not None for array in each.constants]  # type: ignore[union-attr]
        first = 0 if self.constants is None else len(np.asarray(self.constants))
        made = np.ascontiguousarray(np.stack(np.broadcast_arrays(*arrays))) if arrays else None
        return Function(composed(self.steps, outer.steps, first), made)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the input."""
        shape = sole(self, shapes)
        given = () if self.constants is None else np.shape(self.constants)[1:]
        padded = (1,) * (len(shape) - len(given)) + given
        if len(given) > len(shape) or any(n not in (1, m) for n, m in zip(padded, shape, strict=True)):
            raise ValueError(f"constants have shape {given} each, which does not broadcast to the input {shape}")
        return shape

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it: steps by number, constants as rows of one width."""
        arrays = [] if self.constants is None else [np.asarray(array) for array in np.asarray(self.constants)]
        rows = one_a_channel(arrays, place)
        names = list(OPERATIONS)
        numbers: dict[float | str, int] = {}
        code: list[int] = []

        def number_of(operand: Operand) -> int:
            if operand[0] == "x":
                return 0
            if operand[0] == "step":
                return int(operand[1]) + 1
            if operand[0] == "array":
                return -1 - int(operand[1])
            return -1 - len(rows) - numbers.setdefault(str(operand[1]), len(numbers))

        for operation, operands in self.steps:
            at = [number_of(operand) for operand in operands]
            code += [names.index(operation), *at, *[0] * (3 - len(at))]
        width = rows[0].size if rows else 1
        constants = [*rows, *(np.full(width, float(value)) for value in numbers)]
        return "function", {
            "code": code,
            "constants": np.array(constants or [np.zeros(1)], dtype=place.dtype).reshape(-1, width),
        }
