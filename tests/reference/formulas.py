"""The oracle's functions by formula: Python's own evaluation of the text on NumPy arrays, in float64."""

from __future__ import annotations

import math

import numpy as np

from pylrp import layers as kinds

from .graph_forward import number, runs

PLAIN = ["abs", "sign", "sqrt", "exp", "expm1", "log", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh", "where"]
NAMES = {
    **{name: getattr(np, name) for name in [*PLAIN, "floor", "ceil", "round"]},
    **{f"a{name}": getattr(np, f"arc{name}") for name in ["sin", "cos", "tan", "sinh", "cosh", "tanh"]},
    "erf": np.vectorize(math.erf, otypes=[float]),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(0, x),
    "min": np.minimum,
    "max": np.maximum,
    "pow": np.power,
    "both": np.logical_and,
    "either": np.logical_or,
    "no": np.logical_not,
}


@runs(kinds.Function)
def function(layer, x):
    values = {"x": x, **NAMES}
    if layer.constants is not None:
        values |= {f"c{i}": np.broadcast_to(array, x.shape[1:]) for i, array in enumerate(number(layer.constants))}
    *named, result = layer.formula.split(";")
    for line in named:
        name, _, formula = line.partition("=")
        values[name.strip()] = eval(formula, {"__builtins__": {}}, values)
    return eval(result.strip(), {"__builtins__": {}}, values) + 0.0
