"""The rules as a good NumPy or PyTorch user writes them: one product after the other, nothing kept.

Every function takes the namespace ``xp`` (``numpy`` or ``torch``), the weights ``W`` (n_out, n_in), the
layer's input ``a`` (batch, n_in) with a >= 0, as after a ReLU, and the relevance ``R`` (batch, n_out) of
its outputs; it returns the relevance of the inputs. The same functions in float64, in blocks of rows of W,
are the reference of all results (``reference``); ``check_reference`` compares them first with the rules'
definitions, written as full contribution tensors. ``peers.py`` times them, ``cases.py`` asks for the
reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

EPSILON = 1e-6  # of the epsilon rule; the other rules only need a guard against 0/0
TINY = 1e-12
GAMMA = 0.25
LOW, HIGH = -1.0, 1.0  # the z-box


def w_square(xp: Any, W: Any, a: Any, R: Any) -> Any:
    """R_i = sum_j w_ij^2 / (sum_k w_kj^2) R_j: the question's input layer, where no activation is needed."""
    V = W * W
    return (R / V.sum(1)) @ V


def z_plus(xp: Any, W: Any, a: Any, R: Any) -> Any:
    """R_i = sum_j a_i w+_ij / (sum_k a_k w+_kj) R_j: the question's hidden layers."""
    V = W.clip(min=0)
    return a * ((R / (a @ V.T + TINY)) @ V)


def epsilon(xp: Any, W: Any, a: Any, R: Any) -> Any:
    """Epsilon rule with a stabiliser that carries the sign of z."""
    z = a @ W.T
    return a * ((R / xp.where(z < 0, z - EPSILON, z + EPSILON)) @ W)


def gamma(xp: Any, W: Any, a: Any, R: Any) -> Any:
    """Generalised gamma: the contributions that have z's own sign count (1 + gamma) times."""
    P, N = W.clip(min=0), W.clip(max=0)
    zp, zn = a @ P.T, a @ N.T
    z = zp + zn
    up = xp.where(z > 0, R / (z + GAMMA * zp), 0)
    down = xp.where(z < 0, R / (z + GAMMA * zn), 0)
    return a * (((1 + GAMMA) * up + down) @ P + (up + (1 + GAMMA) * down) @ N)


def alpha_beta(xp: Any, W: Any, a: Any, R: Any) -> Any:
    """Alpha-beta rule, 2 and 1: positive and negative contributions, each with its own denominator."""
    P, N = W.clip(min=0), W.clip(max=0)
    return a * ((2 * R / (a @ P.T + TINY)) @ P - (R / (a @ N.T - TINY)) @ N)


def z_box(xp: Any, W: Any, a: Any, R: Any) -> Any:
    """z-box for inputs in [LOW, HIGH], the same bounds for every feature."""
    P, N = W.clip(min=0), W.clip(max=0)
    s = R / (a @ W.T - (LOW * P.sum(1) + HIGH * N.sum(1)) + TINY)
    return a * (s @ W) - LOW * (s @ P) - HIGH * (s @ N)


RULES: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "w2": w_square,
    "z+": z_plus,
    "epsilon": epsilon,
    "gamma": gamma,
    "alpha2-beta1": alpha_beta,
    "z-box": z_box,
}


def explain(xp: Any, rules: Sequence[str], weights: Sequence[Any], acts: Sequence[Any], out: Any) -> Any:
    """Relevance of the network's input: from the last layer down to the first."""
    R = out
    for rule, W, a in zip(reversed(rules), reversed(weights), reversed(acts), strict=True):
        R = RULES[rule](xp, W, a, R)
    return R


def reference(
    rules: Sequence[str], weights: Sequence[Array], acts: Sequence[Array], out: Array, rows: int = 512
) -> Array:
    """Return :func:`explain` in float64.

    The outputs of a layer add up, so W goes through in blocks of rows: there is never a float64 copy of it.
    """
    R = out.astype(np.float64)
    for rule, W, a in zip(reversed(rules), reversed(weights), reversed(acts), strict=True):
        a64 = a.astype(np.float64)
        below = np.zeros_like(a64)
        for start in range(0, len(W), rows):
            block = slice(start, start + rows)
            below += RULES[rule](np, W[block].astype(np.float64), a64, R[:, block])
        R = below
    return R


def relative_error(result: Array, expected: Array) -> float:
    """Largest difference of a sample, relative to its largest value; NaN if there is one."""
    scale = np.abs(expected).max(axis=1)
    return float((np.abs(result - expected).max(axis=1) / scale).max())


def _contributions(rule: str, W: Array, a: Array, R: Array) -> Array:
    """Return a rule's definition, word for word: relevance is split by the shares of the contributions."""
    C = a[:, None, :] * W[None, :, :]  # (batch, out, in)

    def share(part: Array) -> Array:
        """Divide by the sum over the inputs."""
        return np.asarray(part / part.sum(axis=2, keepdims=True))

    if rule == "w2":
        shares = share(np.broadcast_to(W**2, C.shape))
    elif rule == "z+":
        shares = share(np.maximum(C, 0))
    elif rule == "epsilon":
        z = C.sum(axis=2, keepdims=True)
        shares = C / (z + np.where(z < 0, -EPSILON, EPSILON))
    elif rule == "gamma":
        favoured = np.sign(C.sum(axis=2, keepdims=True)) == np.sign(C)
        shares = share(C * np.where(favoured, 1 + GAMMA, 1))
    elif rule == "alpha2-beta1":
        shares = 2 * share(np.maximum(C, 0)) - share(np.minimum(C, 0))
    else:
        shares = share(C - LOW * np.maximum(W, 0) - HIGH * np.minimum(W, 0))
    return np.asarray((shares * R[:, :, None]).sum(axis=1))


def check_reference() -> None:
    """Compare every rule of this file with its definition on a small layer, or raise AssertionError."""
    rng = np.random.default_rng(7)
    W, a, R = rng.standard_normal((19, 23)), rng.random((5, 23)), rng.standard_normal((5, 19))
    for rule in RULES:
        error = relative_error(reference([rule], [W], [a], R, rows=8), _contributions(rule, W, a, R))
        assert error < 1e-10, f"the reference of {rule} is {error:.1e} away from the rule's definition"
        single = RULES[rule](np, *(array.astype(np.float32) for array in (W, a, R)))
        assert single.dtype == np.float32, f"{rule} by hand leaves float32 on the way, which would cost it time"
