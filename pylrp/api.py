"""``pylrp.relevance``: arrays in, relevance out. Settles what the rules are and hands all to the compiled core.

``_boundary.py`` looks at the arrays.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, NoReturn, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp import _core
from pylrp._arrays import require_finite, rounds_to_bfloat16
from pylrp._boundary import check_dtypes, check_shapes, sequences, settle_biases
from pylrp.errors import NotFinite
from pylrp.info import thread_count
from pylrp.network.finite import beyond
from pylrp.network.ledger import Ledger
from pylrp.rules.catalogue import WSquare, ZPlus, broadcast_bounds
from pylrp.rules.composites import Composite, assign_to_dense, unbiased_name
from pylrp.rules.conventions import compile_rule
from pylrp.rules.terms import Rule

__all__ = ["relevance"]

Array = NDArray[Any]
Arrays = Sequence[ArrayLike]
Rules = str | Rule | Composite | Sequence[Rule] | None
_FEW_LAYERS = 4  # so many rules are written out


@overload
def relevance(
    W_list: Arrays,
    acts: Sequence[ArrayLike | None],
    out: ArrayLike,
    *,
    rules: Rules = ...,
    biases: Sequence[ArrayLike | None] | None = ...,
    return_layers: Literal[False] = ...,
    ledger: Literal[False] = ...,
    threads: int | None = ...,
    convention: str = ...,
    precision: str | None = ...,
) -> Array: ...
@overload
def relevance(
    W_list: Arrays,
    acts: Sequence[ArrayLike | None],
    out: ArrayLike,
    *,
    rules: Rules = ...,
    biases: Sequence[ArrayLike | None] | None = ...,
    return_layers: Literal[True],
    ledger: Literal[False] = ...,
    threads: int | None = ...,
    convention: str = ...,
    precision: str | None = ...,
) -> list[Array]: ...
@overload
def relevance(
    W_list: Arrays,
    acts: Sequence[ArrayLike | None],
    out: ArrayLike,
    *,
    rules: Rules = ...,
    biases: Sequence[ArrayLike | None] | None = ...,
    return_layers: Literal[False] = ...,
    ledger: Literal[True],
    threads: int | None = ...,
    convention: str = ...,
    precision: str | None = ...,
) -> tuple[Array, Ledger]: ...
@overload
def relevance(
    W_list: Arrays,
    acts: Sequence[ArrayLike | None],
    out: ArrayLike,
    *,
    rules: Rules = ...,
    biases: Sequence[ArrayLike | None] | None = ...,
    return_layers: bool = ...,
    ledger: bool = ...,
    threads: int | None = ...,
    convention: str = ...,
    precision: str | None = ...,
) -> Array | list[Array] | tuple[Array | list[Array], Ledger]: ...
def relevance(
    W_list: Arrays,
    acts: Sequence[ArrayLike | None],
    out: ArrayLike,
    *,
    rules: Rules = None,
    biases: Sequence[ArrayLike | None] | None = None,
    return_layers: bool = False,
    ledger: bool = False,
    threads: int | None = None,
    convention: str = "zennit",
    precision: str | None = None,
) -> Array | list[Array] | tuple[Array | list[Array], Ledger]:
    """Propagate relevance from the output of a dense network to its input.

    By default the two equations of deep Taylor decomposition: the z+ rule through the hidden layers and the w² rule
    at the input,

    ``R_i = sum_j a_i w_ji+ / (sum_k a_k w_jk+) R_j`` and ``R_i = sum_j w_ji^2 / (sum_k w_jk^2) R_j``

    (Montavon et al., Pattern Recognition 65, 2017). Where a sum is 0 there is no receiver: that relevance is counted
    in the ledger and spread nowhere.

    Parameters
    ----------
    W_list : sequence of array_like, ``W_list[l]`` of shape (n_{l+1}, n_l)
        Weights from the input layer up; a row holds the weights of one neuron of the next layer. float32 or float64,
        the same as every other array.
    acts : sequence of array_like, ``acts[l]`` of shape (batch, n_l) or (n_l,)
        The *input* of each layer, after the activation function of the layer below; ``acts[0]`` is the network's
        input. ``None`` where the layer's rule does not read it (w², flat).
    out : array_like of shape (batch, n_L) or (n_L,)
        Relevance at the top: the network's output, or the logit of one class and zeros elsewhere.
    rules : str, Rule, Composite or sequence of Rule, optional
        Composite by name, one rule for all layers, or one rule a layer from the input up. Default "deep_taylor".
    biases : sequence of array_like or None, ``biases[l]`` of shape (n_{l+1},), optional
        Default: no biases. ``"deep_taylor"`` and ``"deep_taylor_box"`` leave them out of every denominator, as the
        equations do; rules with them in are ``[WSquare(0), ZPlus(0), ...]``.
    return_layers : bool, default False
        Return the relevance at every layer, ``[R_input, R_1, ..., R_output]``.
    ledger : bool, default False
        Return ``(R, ledger)``: where the relevance went, see :class:`pylrp.Ledger`.
    threads : int, optional
        At most so many threads. Default: ``OMP_NUM_THREADS`` or all cores. The result is the same to the last bit.
    convention : {"zennit", "captum", "innvestigate", "lrp_toolbox"}, default "zennit"
        Whose numerics the rules follow.
    precision : {"bfloat16"}, optional
        Products round their operands to bfloat16, three decimal places, and sum in float32: for arrays in float32, by
        request only; docs/precision.md has the errors. Weights may be given in bfloat16 then (arrays of the package
        ml_dtypes): one sample takes half the time. Default: exact, in the arrays' dtype.

    Returns
    -------
    ndarray of shape (batch, n_0) or (n_0,), or list of ndarray, or (either, Ledger)
        In the dtype of the arguments.

    Raises
    ------
    ValueError
        If shapes or lengths do not fit, an entry is NaN or infinite, a rule does not fit its layer, or the relevance
        overflows.
    UnsuitablePrecision
        If there is no such precision, or none for the arrays' dtype.
    TypeError
        If an array is neither float32 nor float64, dtypes are mixed, or a rule is none.

    Warns
    -----
    UserWarning
        If an input lies outside a z-box's bounds, or biases are given to a composite that uses none.

    Examples
    --------
    >>> import numpy as np, pylrp
    >>> W = [np.array([[1.0, -1.0], [0.5, 2.0]]), np.array([[1.0, 1.0]])]
    >>> x = np.array([1.0, 0.5])
    >>> a = np.maximum(W[0] @ x, 0)
    >>> pylrp.relevance(W, [x, a], W[1] @ a).round(3)
    array([0.338, 1.662])
    """
    weights, inputs, top = sequences(W_list, acts, out)
    depth = len(weights)
    bias_list = settle_biases(biases, weights)
    check_shapes(weights, inputs, top)
    check_dtypes(weights, inputs, top, bias_list)
    bfloat16 = rounds_to_bfloat16(precision, top.dtype)
    if not bfloat16:
        _refuse_bfloat16(weights)
    if rules is None or isinstance(rules, str):
        plan = _named_plan(rules or "deep_taylor", depth, convention)
    else:
        plan = _make_plan(rules, depth, convention)
    bounds: list[tuple[Array, Array] | None] = [None] * depth
    if plan.demanding or any(a is None for a in inputs):
        bounds = _check_rules(plan.rules, weights, inputs, top)
    if threads is not None:
        threads = thread_count(threads)
    all_biases = bias_list or [None] * depth
    try:
        answer, pages = _core.relevance(
            weights, all_biases, inputs, plan.compiled, bounds, top, threads or 0, return_layers, ledger, bfloat16
        )
    except _core.CoreError:
        _explain(weights, all_biases, inputs, top)
    if plan.demanding:
        _warn_outside(plan.rules, inputs, bounds)
    if plan.unbiased and any(bias is not None for bias in bias_list):
        _warn_unbiased(plan)
    if return_layers:
        answer.append(top.copy())
    if not ledger:
        return answer  # type: ignore[no-any-return]
    names = [str(l) for l in range(depth)]
    return answer, Ledger(pages, names, [repr(r) for r in plan.rules], single=top.ndim == 1)


def _refuse_bfloat16(weights: list[Array]) -> None:
    for l, weight in enumerate(weights):
        if weight.dtype == np.uint16:
            raise TypeError(f'W_list[{l}] is bfloat16: pass precision="bfloat16", or W_list[{l}].astype(numpy.float32)')


@dataclass(frozen=True)
class _Plan:
    """The rules of a network's layers, ready for the core."""

    rules: Sequence[Rule]
    compiled: Sequence[_core.Rule]
    demanding: bool  # a rule asks for more than its layer's input: bounds, equal widths
    unbiased: str = ""  # the composite, where it is one that is free of biases by its name


def _make_plan(rules: Rules, depth: int, convention: str) -> _Plan:
    chosen = _choose_rules(rules, depth)
    return _Plan(
        chosen,
        [compile_rule(rule, convention) for rule in chosen],
        any(rule.passes or rule.bounds() is not None for rule in chosen),
        unbiased_name(rules),
    )


@lru_cache(maxsize=256)
def _named_plan(name: str, depth: int, convention: str) -> _Plan:
    return _make_plan(name, depth, convention)


def _choose_rules(rules: Rules, depth: int) -> list[Rule]:
    chosen = assign_to_dense(rules, [str(l) for l in range(depth)])
    if chosen is not None:
        return chosen
    if not isinstance(rules, (list, tuple)):
        raise TypeError(f"rules must be a name, a rule or a list of rules, got {_shown(rules)}")
    if len(rules) != depth:
        raise ValueError(f"W_list has {depth} entries, rules has {len(rules)}")
    for l, rule in enumerate(rules):
        if not isinstance(rule, Rule):
            raise TypeError(f"rules[{l}] is not a rule: {_shown(rule)}")
    return list(rules)


def _shown(value: object) -> str:
    if isinstance(value, type):
        return f"{value.__name__} (the class; write {value.__name__}())"
    return f"{value!r} (a {type(value).__name__})"


def _check_rules(
    rules: Sequence[Rule], weights: list[Array], inputs: list[Array | None], top: Array
) -> list[tuple[Array, Array] | None]:
    """Check what a rule asks of its layer; return the bounds of those that have some."""
    result = []
    for l, (rule, weight, a) in enumerate(zip(rules, weights, inputs, strict=True)):
        if rule.passes:
            if weight.shape[0] != weight.shape[1]:
                raise ValueError(
                    f"layer {l}: {rule} hands relevance through unchanged, but weight is {weight.shape}: widths differ"
                )
        elif a is None and any(t.part not in ("one", "low", "high") for g in rule.groups() for t in g.terms):
            raise ValueError(f"layer {l}: acts[{l}] is None, but {rule} reads the layer's input")
        bounds = broadcast_bounds(rule, weight.shape[1:], top.dtype, f"layer {l}")
        result.append(bounds)
    return result


def _warn_unbiased(plan: _Plan) -> None:
    """Say that biases are not used, and which rules use them."""
    with_biases = [replace(rule, bias=True) if isinstance(rule, (WSquare, ZPlus)) else rule for rule in plan.rules]
    shown = [f"{rule}".replace("(stabilizer=0)", "(0)") for rule in with_biases]
    text = ", ".join(shown)
    if len(shown) > _FEW_LAYERS:
        text = f"{shown[0]}, *[{shown[1]}] * {len(shown) - 1}"
    warnings.warn(
        f"{plan.unbiased} is free of biases by its equations: those given are not used. For rules that let them take "
        f"their share, pass rules=[{text}]",
        stacklevel=3,
    )


def _warn_outside(rules: Sequence[Rule], inputs: list[Array | None], bounds: list[tuple[Array, Array] | None]) -> None:
    for l, (rule, a, box) in enumerate(zip(rules, inputs, bounds, strict=True)):
        if box is not None and a is not None and a.size and bool(((a < box[0]) | (a > box[1])).any()):
            warnings.warn(
                f"layer {l}: the input reaches from {a.min():g} to {a.max():g}, outside the bounds of {rule}",
                stacklevel=3,
            )


def _explain(
    weights: list[Array],
    biases: list[Array | None],
    inputs: list[Array | None],
    top: Array,
) -> NoReturn:
    """Say which entry made the result not finite."""
    for l, a in enumerate(inputs):
        if a is not None:
            require_finite(a, f"acts[{l}]")
    require_finite(top, "out")
    for l, weight in enumerate(weights):
        if weight.dtype == top.dtype:  # those in bfloat16 were looked at
            require_finite(weight, f"W_list[{l}]")
    # The core has no other error: its results are not finite.
    raise NotFinite(
        f"the relevance overflows {top.dtype}: values are large, or a denominator is nearly zero; {beyond(top.dtype)}",
        what="relevance",
    ) from None
