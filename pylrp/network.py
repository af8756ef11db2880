"""``pylrp.Network``: a network prepared once, then explained in one call into the compiled core.

What depends on the weights and the rules alone (w² and flat normalisations, the constant parts of a z-box) is computed
the first time a composite is used and kept. :func:`pylrp.relevance` is the one-shot form for bare arrays.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp import _core
from pylrp._arrays import require_finite, settle
from pylrp.composites import Composite, spread
from pylrp.conventions import compile_rule
from pylrp.explanation import Explanation
from pylrp.info import thread_count
from pylrp.layers import Activation, Dense, Layer
from pylrp.ledger import Ledger
from pylrp.rules import Rule, broadcast_bounds

__all__ = ["Network"]

Array = NDArray[Any]
_MOST_PLANS = 64


class Network:
    """A network of dense layers and activations.

    Parameters
    ----------
    layers : sequence of Layer
        From the input up: :class:`pylrp.layers.Dense` and activations such as :class:`pylrp.layers.ReLU`. The arrays
        are used in place where they are float32 or float64 with contiguous rows; don't change them afterwards.

    Raises
    ------
    ValueError
        If shapes do not fit, or a weight or bias is NaN or infinite.
    TypeError
        If an entry is no layer, or arrays are of mixed or other dtypes.

    Examples
    --------
    >>> import numpy as np, pylrp
    >>> from pylrp.layers import Dense, ReLU
    >>> net = pylrp.Network([Dense([[1.0, -1.0], [0.5, 2.0]]), ReLU(), Dense([[1.0, 1.0]])])
    >>> ex = net.explain(np.array([1.0, 0.5]), composite="epsilon")
    >>> ex.relevance.round(3), ex.output
    (array([1. , 1. ]), array([2.]))
    """

    def __init__(self, layers: Sequence[Layer]):
        self.names: list[str] = []
        self._weights: list[Array] = []
        self._biases: list[Array | None] = []
        self._activations: list[list[tuple[str, float]]] = []
        for position, layer in enumerate(layers):
            if isinstance(layer, Dense):
                self._add_dense(layer, position)
            elif isinstance(layer, Activation):
                if not self._weights:
                    raise ValueError(f"layers[{position}] is {layer}: an activation needs a dense layer before it")
                self._activations[-1].append(layer.core())
            else:
                raise TypeError(f"layers[{position}] is not a layer of pylrp.layers: {layer!r}")
        if not self._weights:
            raise ValueError("a network needs at least one dense layer")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"names of layers must differ, got {', '.join(self.names)}")
        self._plans: dict[Any, tuple[_core.Plan, list[str], Array | None, Array | None]] = {}

    def _add_dense(self, layer: Dense, position: int) -> None:
        where = f"layers[{position}]"
        weight = settle(layer.weight, f"{where}: weight")
        if weight.ndim != 2:
            raise ValueError(f"{where}: weight has shape {weight.shape}, expected (n_out, n_in)")
        if self._weights and self._weights[-1].shape[0] != weight.shape[1]:
            below = self._weights[-1].shape
            raise ValueError(f"{where}: weight is {weight.shape}, its input has {below[0]} features (weight {below})")
        dtype = self._weights[0].dtype if self._weights else weight.dtype
        bias = None if layer.bias is None else settle(layer.bias, f"{where}: bias")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(f"{where}: bias has shape {bias.shape}, its weight is {weight.shape}")
        for name, array in (("weight", weight), ("bias", bias)):
            if array is None:
                continue
            if array.dtype is not dtype:
                raise TypeError(f"{where}: {name} is {array.dtype}, the first weight is {dtype}: convert to one dtype")
            require_finite(array, f"{where}: {name}")
        self.names.append(layer.name or str(len(self.names)))
        self._weights.append(weight)
        self._biases.append(bias)
        self._activations.append([])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype in which everything is computed: float32 or float64."""
        return self._weights[0].dtype

    @property
    def input_size(self) -> int:
        """Return the number of input features."""
        return int(self._weights[0].shape[1])

    @property
    def output_size(self) -> int:
        """Return the number of outputs."""
        return int(self._weights[-1].shape[0])

    def __repr__(self) -> str:
        sizes = [self.input_size] + [int(w.shape[0]) for w in self._weights]
        return f"<Network {'-'.join(map(str, sizes))}, {self.dtype}>"

    def forward(self, x: ArrayLike, *, threads: int | None = None) -> Array:
        """Return the network's output.

        Parameters
        ----------
        x : array_like of shape (batch, n_0) or (n_0,)
        threads : int, optional

        Returns
        -------
        ndarray of shape (batch, n_L) or (n_L,)
        """
        plan = self._plan("epsilon", "zennit")[0]
        return plan.forward(self._settle_input(x), 0 if threads is None else thread_count(threads))

    def explain(
        self,
        x: ArrayLike,
        target: int | ArrayLike | None = None,
        composite: str | Composite | Rule | Sequence[Rule] = "deep_taylor",
        *,
        targets: Sequence[int] | None = None,
        start: Literal["logit", "one"] = "logit",
        convention: str = "zennit",
        threads: int | None = None,
    ) -> Explanation:
        """Predict, and explain the prediction.

        Parameters
        ----------
        x : array_like of shape (batch, n_0) or (n_0,)
            In the network's dtype.
        target : int, sequence of int or array_like of shape (batch, n_L), optional
            The class to explain: the top class of each sample (default), one for all, one a sample, or relevance at
            the top, used as it is.
        composite : str, Composite, Rule or sequence of Rule, default "deep_taylor"
            Rules by name, one for all layers, or one for each dense layer from the input up.
        targets : sequence of int, optional
            Explain several classes on one forward pass; the relevance has shape (batch, targets, n_0), for a single
            sample (targets, n_0).
        start : {"logit", "one"}, default "logit"
            Relevance at the top: the class's output, or 1.
        convention : str, default "zennit"
        threads : int, optional

        Returns
        -------
        Explanation

        Raises
        ------
        ValueError
            If shapes do not fit, the input is NaN or infinite, or a target is no class.
        TypeError
            If the input's dtype is not the network's.

        Warns
        -----
        UserWarning
            If the input lies outside a z-box's bounds.
        """
        if start not in ("logit", "one"):
            raise ValueError(f"start must be 'logit' or 'one', got {start!r}")
        values = self._settle_input(x)
        plan, rules, low, high = self._plan(composite, convention)
        if low is not None and values.size and bool(((values < low) | (values > high)).any()):
            self._warn_outside(values, rules[0])
        wanted = self._targets(target, targets, values)
        try:
            output, answers = plan.explain(
                values, wanted, start == "one", 0 if threads is None else thread_count(threads)
            )
        except _core.CoreError:
            require_finite(values, "x")
            raise
        single = values.ndim == 1
        ledgers = [Ledger(pages, self.names, rules, single=single) for _, _, pages in answers]
        names = [*self.names, "output"]
        if targets is None:
            chosen, layers, _ = answers[0]
            return Explanation(layers[0], output, chosen, dict(zip(names, layers, strict=True)), ledgers[0])
        axis = 0 if single else 1
        stacked = [np.stack(parts, axis=axis) for parts in zip(*(a[1] for a in answers), strict=True)]
        chosen = np.stack([a[0] for a in answers if a[0] is not None], axis=1)
        return Explanation(stacked[0], output, chosen, dict(zip(names, stacked, strict=True)), ledgers)

    def _settle_input(self, x: ArrayLike) -> Array:
        values = settle(x, "x")
        if values.ndim not in (1, 2) or values.shape[-1] != self.input_size:
            transposed = values.ndim == 2 and values.shape[0] == self.input_size
            raise ValueError(
                f"x has shape {values.shape}, the network takes (batch, {self.input_size})"
                + ("; samples are rows here, yours are columns: pass x.T" if transposed else "")
            )
        if values.dtype is not self.dtype:
            raise TypeError(
                f"x is {values.dtype}, the network is {self.dtype}: convert x, or build it in {values.dtype}"
            )
        return values

    def _plan(
        self, rules: str | Composite | Rule | Sequence[Rule], convention: str
    ) -> tuple[_core.Plan, list[str], Array | None, Array | None]:
        """Return what is prepared for these rules: the plan, the rules' names, the first layer's bounds."""
        key = (rules, convention) if isinstance(rules, str) else None
        if key is not None and key in self._plans:
            return self._plans[key]
        chosen = self._assign(rules)
        # Equal rules may differ in whether a number was left at its default, which conventions may replace: the
        # compiled rules tell them apart.
        compiled = [compile_rule(rule, convention) for rule in chosen]
        inner = tuple(chosen), tuple(map(id, compiled))
        if inner not in self._plans:
            bounds = [
                broadcast_bounds(rule, w.shape[1:], self.dtype, f"layer {name}")
                for rule, w, name in zip(chosen, self._weights, self.names, strict=True)
            ]
            for rule, w, name in zip(chosen, self._weights, self.names, strict=True):
                if rule.passes and w.shape[0] != w.shape[1]:
                    raise ValueError(f"layer {name}: {rule} hands relevance through unchanged, but weight is {w.shape}")
            plan = _core.Plan(self._weights, self._biases, self._activations, compiled, bounds, 0)
            low, high = bounds[0] or (None, None)
            if len(self._plans) >= _MOST_PLANS:  # a sweep over parameters must not collect them
                self._plans.clear()
            self._plans[inner] = plan, [repr(rule) for rule in chosen], low, high
        if key is not None:
            self._plans[key] = self._plans[inner]
        return self._plans[inner]

    def _assign(self, rules: str | Composite | Rule | Sequence[Rule]) -> list[Rule]:
        chosen = spread(rules, self.names)
        if chosen is not None:
            return chosen
        chosen = list(rules)  # type: ignore[arg-type]  # all else was spread
        if len(chosen) != len(self.names):
            raise ValueError(f"the network has {len(self.names)} dense layers, composite has {len(chosen)} rules")
        for position, rule in enumerate(chosen):
            if not isinstance(rule, Rule):
                raise TypeError(f"composite[{position}] is not a rule: {rule!r}")
        return chosen

    def _targets(
        self, target: int | ArrayLike | None, targets: Sequence[int] | None, values: Array
    ) -> list[Array | None]:
        if targets is not None:
            if target is not None:
                raise ValueError("give target or targets, not both")
            if len(targets) == 0:
                raise ValueError("targets is empty")
            return [self._classes(np.asarray(t), values) for t in targets]
        if target is None:
            return [None]
        array = np.asarray(target)
        if array.dtype.kind in "iu" and array.ndim < 2:
            return [self._classes(array, values)]
        given = settle(target, "target")
        shape = (*values.shape[:-1], self.output_size)
        if given.shape != shape:
            raise ValueError(f"target has shape {given.shape}, the output has shape {shape}")
        if given.dtype is not self.dtype:
            raise TypeError(f"target is {given.dtype}, the network is {self.dtype}")
        require_finite(given, "target")
        return [given]

    def _classes(self, target: Array, values: Array) -> Array:
        if target.dtype.kind not in "iu":
            raise TypeError(f"a target must be an integer, got {target.dtype}")
        batch = 1 if values.ndim == 1 else len(values)
        if target.ndim == 1 and len(target) != batch:
            raise ValueError(f"target has {len(target)} entries, x has {batch} samples")
        wrong = (target < 0) | (target >= self.output_size)
        if wrong.any():
            raise ValueError(f"target {target[wrong].flat[0]} is no class: the network has {self.output_size} outputs")
        return np.atleast_1d(target).astype(np.int64)

    def _warn_outside(self, values: Array, rule: str) -> None:
        warnings.warn(
            f"the input reaches from {values.min():g} to {values.max():g}, outside the bounds of {rule}", stacklevel=3
        )
