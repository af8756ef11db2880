"""Formulas of one value as programs: ``"x * sigmoid(1.702 * x)"`` to elementary steps and back.

``layers/function.py`` keeps the text and hands the steps to the core; loaders write formulas with :class:`Writer`.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["OPERATIONS", "Operand", "Step", "Writer", "composed", "evaluated", "parsed"]

Floats = NDArray[np.float64]
#: What a step takes: ``("x",)``, ``("step", number)`` from 0, ``("array", number)`` or ``("number", value)``.
Operand = tuple[Any, ...]
#: An operation and its operands.
Step = tuple[str, tuple[Operand, ...]]

_erf = np.vectorize(math.erf, otypes=[np.float64])

#: Operations in the core's order (``Op`` in ``csrc/layers/function.cpp``), with what they compute in NumPy.
OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "pow": np.power,
    "min": np.minimum,
    "max": np.maximum,
    "less": lambda a, b: np.less(a, b) * 1.0,
    "less_equal": lambda a, b: np.less_equal(a, b) * 1.0,
    "equal": lambda a, b: np.equal(a, b) * 1.0,
    "both": lambda a, b: np.logical_and(a, b) * 1.0,
    "either": lambda a, b: np.logical_or(a, b) * 1.0,
    "where": lambda c, a, b: np.where(c != 0, a, b),
    "negative": np.negative,
    "no": lambda a: np.equal(a, 0) * 1.0,
    "abs": np.abs,
    "sign": np.sign,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": _erf,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "softplus": lambda a: np.logaddexp(0, a),
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
}
_COUNTS = {name: 3 if name == "where" else 2 if i < list(OPERATIONS).index("where") else 1
           for i, name in enumerate(OPERATIONS)}  # fmt: skip
_SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "pow": "**", "less": "<", "less_equal": "<=",
          "equal": "=="}  # fmt: skip
_BINARY: dict[type, str] = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide",
                            ast.Pow: "pow"}  # fmt: skip
_COMPARED: dict[type, tuple[str, bool]] = {
    ast.Lt: ("less", False), ast.LtE: ("less_equal", False), ast.Eq: ("equal", False),
    ast.Gt: ("less", True), ast.GtE: ("less_equal", True),
}  # fmt: skip
_MOST_STEPS = 512
_LONGEST = 20_000
X: Operand = ("x",)


class Writer:
    """A program in the making: equal steps are one, what is made of numbers alone is a number."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._known: dict[Step, Operand] = {}

    def step(self, operation: str, *operands: Operand | float) -> Operand:
        """Add a step and return its result."""
        given = tuple(("number", float(v)) if isinstance(v, int | float) else v for v in operands)
        if len(given) != _COUNTS[operation]:
            raise ValueError(f"{operation} takes {_COUNTS[operation]} values, got {len(given)}")
        if all(operand[0] == "number" for operand in given):
            with np.errstate(all="ignore"):
                return ("number", float(OPERATIONS[operation](*(np.float64(operand[1]) for operand in given))))
        if operation == "pow" and given[1][0] == "number":
            plain = self._power(given[0], given[1][1])
            if plain is not None:
                return plain
        made = (operation, given)
        if made not in self._known:
            if len(self.steps) >= _MOST_STEPS:
                raise ValueError(f"a function has more than {_MOST_STEPS} steps")
            self.steps.append(made)
            self._known[made] = ("step", len(self.steps) - 1)
        return self._known[made]

    def _power(self, base: Operand, exponent: float) -> Operand | None:
        if exponent == 1:
            return base
        if exponent == 2:
            return self.step("multiply", base, base)
        if exponent == 3:
            return self.step("multiply", self.step("multiply", base, base), base)
        if exponent == 0.5:
            return self.step("sqrt", base)
        if exponent == -1:
            return self.step("divide", 1.0, base)
        return None

    def text(self, result: Operand) -> str:
        """Return the formula of a result; what is used more than once has a name."""
        if result[0] != "step":
            result = self.step("add", result, 0.0)
        uses: dict[int, int] = {}
        waiting = [result[1]]
        while waiting:
            for operand in self.steps[waiting.pop()][1]:
                if operand[0] == "step":
                    uses[operand[1]] = uses.get(operand[1], 0) + 1
                    if uses[operand[1]] == 1:
                        waiting.append(operand[1])
        names = {number: f"v{i}" for i, number in enumerate(sorted(n for n, count in uses.items() if count > 1))}
        lines = [f"{name} = {self._written(number, names)}" for number, name in names.items()]
        return "; ".join([*lines, self._written(result[1], names)])

    def _written(self, number: int, names: Mapping[int, str]) -> str:
        operation, operands = self.steps[number]
        parts = []
        for operand in operands:
            infix = operation in _SIGNS or operation == "negative"
            if operand[0] == "step":
                named = names.get(operand[1])
                part = named or self._written(operand[1], names)
                bare = named is not None or self.steps[operand[1]][0] not in (*_SIGNS, "negative")
            elif operand[0] == "number":
                part, bare = _number(operand[1]), operand[1] >= 0
            else:
                part, bare = ("x" if operand == X else f"c{operand[1]}"), True
            parts.append(part if bare or not infix else f"({part})")
        if operation == "negative":
            return f"-{parts[0]}"
        return f" {_SIGNS[operation]} ".join(parts) if operation in _SIGNS else f"{operation}({', '.join(parts)})"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    whole = value == int(value) and abs(value) < 1e15 and math.copysign(1, value) * value >= 0 and str(value) != "-0.0"
    return str(int(value)) if whole else repr(value)


@lru_cache(maxsize=256)
def parsed(formula: str) -> tuple[tuple[Step, ...], int]:
    """Return the steps of a formula, and how many arrays it takes.

    Raises
    ------
    ValueError
        If it is no formula of x.
    """
    reader = _Reader(formula)
    if len(formula) > _LONGEST:
        raise ValueError(f"formula has {len(formula):,} characters, more than {_LONGEST:,}")
    try:
        lines = ast.parse("\n".join(line.strip() for line in formula.split(";"))).body
        for number, line in enumerate(lines):
            last = number + 1 == len(lines)
            if isinstance(line, ast.Expr) and last:
                reader.result = reader.read(line.value)
            elif isinstance(line, ast.Assign) and not last and isinstance(line.targets[0], ast.Name):
                reader.names[line.targets[0].id] = reader.read(line.value)
            else:
                raise reader.wrong("names and values as in 'v = x * x; v * exp(v)' are expected")
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise reader.wrong(str(error) or type(error).__name__) from None
    return reader.program()


class _Reader:
    def __init__(self, formula: str):
        self.formula, self.writer = formula, Writer()
        self.names: dict[str, Operand] = {"x": X}
        self.result: Operand | None = None
        self.arrays = 0

    def wrong(self, reason: str) -> ValueError:
        return ValueError(f"formula is {self.formula!r}: {reason}")

    def program(self) -> tuple[tuple[Step, ...], int]:
        if self.result is None:
            raise self.wrong("it is empty")
        if self.result[0] != "step" or self.result[1] != len(self.writer.steps) - 1:
            self.writer.step("add", self.result, ("number", 0.0))
        return tuple(self.writer.steps), self.arrays

    def read(self, node: ast.expr) -> Operand:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            return ("number", float(node.value))
        if isinstance(node, ast.Name):
            return self._named(node.id)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            value = self.read(node.operand)
            return value if isinstance(node.op, ast.UAdd) else self.writer.step("negative", value)
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return self.writer.step(_BINARY[type(node.op)], self.read(node.left), self.read(node.right))
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARED:
            operation, turned = _COMPARED[type(node.ops[0])]
            sides = [self.read(node.left), self.read(node.comparators[0])]
            return self.writer.step(operation, *(sides[::-1] if turned else sides))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            if node.func.id in OPERATIONS:
                try:
                    return self.writer.step(node.func.id, *map(self.read, node.args))
                except ValueError as error:
                    raise self.wrong(str(error)) from None
            raise self.wrong(f"there is no function {node.func.id}; there are {', '.join(OPERATIONS)}")
        raise self.wrong(f"{ast.unparse(node)!r} is none of the operations {', '.join(OPERATIONS)}")

    def _named(self, name: str) -> Operand:
        if name in self.names:
            return self.names[name]
        if name in ("inf", "nan"):
            return ("number", float(name))
        if name.startswith("c") and name[1:].isdigit():
            self.arrays = max(self.arrays, int(name[1:]) + 1)
            return ("array", int(name[1:]))
        raise self.wrong(f"{name!r} is no value; the argument is called x, arrays are c0, c1, ...")


def composed(inner: Sequence[Step], outer: Sequence[Step], arrays: int) -> str:
    """Return the formula of a program whose argument is what another one gives, which takes so many arrays."""
    writer, x, first = Writer(), X, 0
    for steps in (inner, outer):
        made: list[Operand] = []

        def meant(operand: Operand, x: Operand = x, made: list[Operand] = made, first: int = first) -> Operand:
            kind = operand[0]
            if kind == "array":
                return ("array", first + operand[1])
            return x if kind == "x" else made[operand[1]] if kind == "step" else operand

        for operation, operands in steps:
            made.append(writer.step(operation, *map(meant, operands)))
        x, first = made[-1], arrays
    return writer.text(x)


def evaluated(steps: Sequence[Step], x: Any, arrays: Any = ()) -> Floats:
    """Return the value of a program in float64: for loading, and for f(0); the core computes networks' values."""
    made: list[Any] = []
    with np.errstate(all="ignore"):
        for operation, operands in steps:
            values = [_value(operand, x, arrays, made) for operand in operands]
            made.append(OPERATIONS[operation](*values))
    return np.asarray(made[-1], np.float64)


def _value(operand: Operand, x: Any, arrays: Any, made: list[Any]) -> Any:
    kind = operand[0]
    if kind == "x":
        return np.asarray(x, np.float64)
    return np.float64(operand[1]) if kind == "number" else made[operand[1]] if kind == "step" else arrays[operand[1]]
