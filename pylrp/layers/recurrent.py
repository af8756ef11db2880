"""Recurrent layers: LSTM, GRU and simple RNN over the steps of a sequence.

Each is one call into the core for all steps and both directions; ``csrc/layers/recurrent`` has the equations and the
way back. Loaders hand over weights as their library orders them: the order of gates is a setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from pylrp.layers.base import Layer, Place, Shape, Spec
from pylrp.layers.cause import Cause
from pylrp.network.layout import Order, as_it_is, steps

__all__ = ["GRU", "LSTM", "RNN", "Curve", "Recurrent"]

#: A function of a cell: its name, or its name and two parameters.
Curve = str | tuple[str, float, float]

STATE = Cause(
    "state",
    label="initial states",
    legend="absorbed by initial states",
    stayed="in the states that recurrent layers begin with",
    help="Share of a recurrent layer's initial state, where that is a constant.",
    colour="#117733",
    page_colours=("#117733", "#5fbf7f"),
)

#: Functions without parameters, and the core's names of those that are called otherwise elsewhere.
_PLAIN = {"sigmoid", "tanh", "relu", "softplus", "softsign", "gelu", "gelu_tanh", "silu", "hard_swish", "mish", "exp"}
_WITH_NUMBERS = {"affine": "affine_function", "thresholded_relu": "", "scaled_tanh": "", "hard_sigmoid": "",
                 "leaky_relu": "", "elu": ""}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Recurrent(Layer):
    """Base of the recurrent layers.

    Input: a sequence of logical shape ``(steps, features)``; then, in this order and where ``takes`` names them, the
    lengths, shape ``(1,)``, or one number a step, 0 where it is left out, shape ``(steps,)``; the first states, shape
    ``(directions * units,)``.

    Output: the state after the last step, ``(directions * units,)``; with ``returns="sequence"`` that of every step,
    ``(steps, directions * units)``; with ``"all"`` one after the other the sequence, the last states and, of an LSTM,
    the last cell states, flat.

    Parameters
    ----------
    weight : array_like of shape (gates * units, features)
        For two directions ``(2, gates * units, features)``, forward first; all other arrays likewise.
    recurrent : array_like of shape (gates * units, units)
    bias : array_like of shape (gates * units,), optional
    recurrent_bias : array_like of shape (gates * units,), optional
        Beside the state's product, as torch has it. It makes a difference in a GRU with ``reset_after``; else the two
        are added up.
    direction : {"forward", "reverse", "bidirectional"}, optional
        Default: by the number of directions in ``weight``.
    returns : {"last", "sequence", "all"}, default "last"
    gates : str
        The order of the gates' blocks of rows.
    activations : sequence of str or (str, float, float), optional
        For gates, the cell and, of an LSTM, the output; one such tuple, or one for each direction. Default: sigmoid
        and tanh.
    clip : float, optional
        Bounds the sums that the functions of gates and of the cell take to [-clip, clip].
    first_h : array_like of shape (units,) or (directions, units), optional
        The state before the first step. Default: 0.
    takes : tuple of {"lengths", "h", "c"}, default ()
        Which further inputs there are.
    carried : bool, default False
        Whether the output at a step that is left out is the one before, as in Keras, and not 0.
    name : str, optional
    """

    weight: ArrayLike
    recurrent: ArrayLike
    bias: ArrayLike | None = None
    recurrent_bias: ArrayLike | None = None
    direction: Literal["forward", "reverse", "bidirectional"] | None = field(default=None, kw_only=True)
    returns: Literal["last", "sequence", "all"] = field(default="last", kw_only=True)
    gates: str = field(default="", kw_only=True)
    activations: Sequence[Any] | None = field(default=None, kw_only=True)
    clip: float | None = field(default=None, kw_only=True)
    first_h: ArrayLike | None = field(default=None, kw_only=True)
    takes: tuple[str, ...] = field(default=(), kw_only=True)
    carried: bool = field(default=False, kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    rule_kind: ClassVar[str | None] = "recurrent"
    differentiable: ClassVar[bool] = False
    weighted: ClassVar[bool] = True
    has_ledger_row: ClassVar[bool] = True
    effect_without_rule: ClassVar[str] = "Signal()"
    causes: ClassVar[tuple[Cause, ...]] = (STATE,)
    arrays: ClassVar[tuple[str, ...]] = ("weight", "recurrent", "bias", "recurrent_bias", "first_h")
    #: The core's order of the gates, each gate's other names, and the states that it begins with.
    order: ClassVar[str] = ""
    states: ClassVar[tuple[str, ...]] = ("h",)
    usual: ClassVar[tuple[str, ...]] = ("sigmoid", "tanh", "tanh")

    def __post_init__(self) -> None:
        """Raise where settings do not fit each other."""
        super().__post_init__()
        if sorted(self._letters()) != sorted(self.order):
            raise ValueError(f"gates is {self.gates!r}, expected the letters {self.order!r} in the weights' order")
        if self.returns not in ("last", "sequence", "all"):
            raise ValueError(f"returns is {self.returns!r}, expected 'last', 'sequence' or 'all'")
        if self.direction not in (None, "forward", "reverse", "bidirectional"):
            raise ValueError(f"direction is {self.direction!r}, expected 'forward', 'reverse' or 'bidirectional'")
        if self.takes != tuple(name for name in ("lengths", *self.states) if name in self.takes):
            raise ValueError(f"takes is {self.takes!r}, expected some of {('lengths', *self.states)} in this order")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip is {self.clip}, expected a number above 0")
        self._curves()

    def __repr__(self) -> str:
        words = [str(np.shape(self.weight)), str(np.shape(self.recurrent))]
        usual = {"direction": None, "returns": "last", "takes": (), "clip": None, "carried": False}
        words += [f"{name}={getattr(self, name)!r}" for name, value in usual.items() if getattr(self, name) != value]
        return f"{type(self).__name__}({', '.join(words)})"

    @property
    def directions(self) -> int:
        """Return 1 or 2."""
        shape = np.shape(self.weight)
        return int(shape[0]) if len(shape) == 3 else 1

    @property
    def units(self) -> int:
        """Return how many numbers the state of one direction has."""
        return int(np.shape(self.recurrent)[-1])

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the logical shape that ``returns`` says."""
        self._require_arrays()
        (count, features), others = self._sequence(shapes), shapes[1:]
        states = self.directions * self.units
        expected = [((1,), (count,)) if name == "lengths" else ((states,),) for name in self.takes]
        for name, shape, fits in zip(self.takes, others, expected, strict=True):
            if shape not in fits:
                raise ValueError(f"{name} has shape {shape}, expected {' or '.join(map(str, fits))}")
        if features != np.shape(self.weight)[-1]:
            raise ValueError(f"weight is {np.shape(self.weight)}, a step of its input has {features} features")
        if self.returns == "last":
            return (states,)
        return (count, states) if self.returns == "sequence" else (states * (count + len(self.states)),)

    def wanted_orders(self, shapes: Sequence[Shape], output: Shape, wanted: Order | None) -> Sequence[Order | None]:
        """Return the orders as they are: a step's features lie next to each other."""
        return [as_it_is(len(shape)) for shape in shapes]

    def stored_orders(
        self, shapes: Sequence[Shape], output: Shape, given: Sequence[Order], wanted: Order | None
    ) -> tuple[Sequence[Order], Order]:
        """Return the orders as they are: the sequences may lie in any."""
        return given, as_it_is(len(output)) if wanted is None else wanted

    def to_core(self, place: Place) -> Spec:
        """Return the layer as the core takes it."""
        count, features = place.inputs[0]
        states, directions = self.directions * self.units, self.directions
        y, ends = (-1, 0, 0), (-1, -1)
        if self.returns == "sequence":
            y = (0, *steps(place.output, place.order))  # type: ignore[assignment]  # a sequence has two axes
        elif self.returns == "last":
            ends = (0, -1)
        else:
            y = (0, states, 1)
            ends = (count * states, (count + 1) * states if "c" in self.states else -1)
        curves = [curve for each in self._curves() for curve in each]
        letters = self._letters()
        return self.kind, {
            "weight": self._rows(self.weight),
            "recurrent": self._rows(self.recurrent),
            "bias": self._column(self.bias),
            "state_bias": self._column(self.recurrent_bias),
            "order": [letters.index(gate) for gate in self.order],
            "activations": [name for name, _, _ in curves],
            "alphas": [a for _, a, _ in curves],
            "betas": [b for _, _, b in curves],
            "clip": np.inf if self.clip is None else float(self.clip),
            "reverse": [1] if self.direction == "reverse" else [0, 1][:directions],
            "first_h": self._of_directions(self.first_h),
            "x": [count, features, *steps(place.inputs[0], place.orders[0])],
            "y": list(y),
            "ends": list(ends),
            "inputs": [self.takes.index(name) + 1 if name in self.takes else -1 for name in ("lengths", "h", "c")],
            "carried": self.carried,
            "reset_after": False,
            "coupled": False,
            **self._own_fields(),
        }

    def _own_fields(self) -> dict[str, Any]:
        return {}

    def _letters(self) -> str:
        return self.gates or self.order

    def _curves(self) -> list[list[tuple[str, float, float]]]:
        """Return the functions of each direction: of gates, the cell, the output; the core takes three."""
        given = self.usual if self.activations is None else tuple(self.activations)
        several = given and isinstance(given[0], list | tuple) and not isinstance(given[0][-1], int | float)
        each = list(given) if several else [given] * self.directions
        count = len(self.usual)
        if len(each) != self.directions or any(len(one) != count for one in each):
            raise ValueError(f"activations is {self.activations!r}, expected {count} functions such as {self.usual}")
        made = [[_curve(curve) for curve in one] for one in each]
        return [[*([("sigmoid", 0.0, 0.0)] if count == 1 else []), *one, ("tanh", 0.0, 0.0)][:3] for one in made]

    def _sequence(self, shapes: tuple[Shape, ...]) -> tuple[int, int]:
        if len(shapes) != 1 + len(self.takes):
            raise ValueError(f"{type(self).__name__} takes {1 + len(self.takes)} inputs here, got {len(shapes)}")
        shape = shapes[0]
        if len(shape) != 2:
            raise ValueError(f"{type(self).__name__} takes a sequence of shape (steps, features), got {shape}")
        return shape[0], shape[1]

    def _require_arrays(self) -> None:
        weight, recurrent = np.shape(self.weight), np.shape(self.recurrent)
        rows = len(self.order) * self.units
        lead = weight[:1] if len(weight) == 3 else ()
        if len(weight) not in (2, 3) or weight[-2] != rows or recurrent != (*lead, rows, self.units) or not rows:
            raise ValueError(
                f"weight is {weight}, recurrent {recurrent}: expected ({len(self.order)} * units, features) and "
                f"({len(self.order)} * units, units), with a leading axis of 2 for two directions"
            )
        if lead not in ((), (1,), (2,)) or ((self.direction == "bidirectional") != (lead == (2,)) and self.direction):
            raise ValueError(f"weight is {weight}, which does not fit direction={self.direction!r}")
        for name in ("bias", "recurrent_bias"):
            given = getattr(self, name)
            if given is not None and np.shape(given) not in ((*lead, rows), (rows * self.directions,)):
                raise ValueError(f"{name} has shape {np.shape(given)}, expected {(*lead, rows)}")
        for name in self.states:
            given = getattr(self, f"first_{name}")
            if given is not None and np.size(given) != self.directions * self.units:
                raise ValueError(f"first_{name} has shape {np.shape(given)}, expected {(self.directions, self.units)}")

    def _rows(self, array: Any) -> Any:
        return np.reshape(array, (-1, np.shape(array)[-1]))

    def _column(self, array: Any) -> Any:
        return None if array is None else np.ascontiguousarray(np.reshape(array, (-1, 1)))

    def _of_directions(self, array: Any, each: int = 1) -> Any:
        return None if array is None else np.ascontiguousarray(np.reshape(array, (-1, each * self.units)))


def _curve(given: Any) -> tuple[str, float, float]:
    name, *numbers = (given,) if isinstance(given, str) else given
    if name == "linear":
        name, numbers = "affine", [1.0, 0.0]
    if name in _PLAIN and not any(numbers):
        return name, 0.0, 0.0
    if name not in _WITH_NUMBERS or len(numbers) != 2:
        known = ", ".join(sorted(_PLAIN | {"linear"}))
        raise ValueError(
            f"activations has {given!r}; there are {known}, and with two numbers {', '.join(sorted(_WITH_NUMBERS))}"
        )
    return _WITH_NUMBERS[name] or name, float(numbers[0]), float(numbers[1])


@dataclass(frozen=True, eq=False, repr=False)
class LSTM(Recurrent):
    """Long short-term memory: ``c = f c' + i g``, ``h = o H(c)``, ``g = G(W_g x + U_g h' + b_g)``.

    The gates i, f, o count as constants in relevance (:class:`pylrp.rules.Signal`): ``R_c' = f c' R_c / c``,
    ``R_g = i g R_c / c``, ``R_x = x W_g^T (R_g / z_g)``. See :class:`Recurrent` for inputs, outputs and the other
    parameters.

    Parameters
    ----------
    gates : str, default "ifgo"
        The order of the gates in the arrays: torch's and Keras's; ONNX has ``"iofg"``.
    first_c : array_like of shape (units,) or (directions, units), optional
        The cell state before the first step. Default: 0.
    peepholes : array_like of shape (3 * units,) or (directions, 3 * units), optional
        What the gates i, f and o, in this order, take of the cell state, element by element.
    coupled : bool, default False
        Whether f is 1 - i.

    References
    ----------
    L. Arras, G. Montavon, K.-R. Müller, W. Samek, "Explaining recurrent neural network predictions in sentiment
    analysis", WASSA 2017.

    Examples
    --------
    >>> import numpy as np, pylrp
    >>> from pylrp.layers import LSTM, Dense
    >>> rng = np.random.default_rng(0)
    >>> W, U, b = rng.normal(size=(16, 3)), rng.normal(size=(16, 4)), np.zeros(16)
    >>> net = pylrp.Network([LSTM(W, U, b), Dense(rng.normal(size=(2, 4)))], input_shape=(10, 3))
    >>> net.explain(rng.normal(size=(10, 3))).relevance.shape  # steps, features
    (10, 3)
    """

    first_c: ArrayLike | None = field(default=None, kw_only=True)
    peepholes: ArrayLike | None = field(default=None, kw_only=True)
    coupled: bool = field(default=False, kw_only=True)
    kind: ClassVar[str] = "lstm"
    arrays: ClassVar[tuple[str, ...]] = (*Recurrent.arrays, "first_c", "peepholes")
    order: ClassVar[str] = "ifog"
    states: ClassVar[tuple[str, ...]] = ("h", "c")

    def _letters(self) -> str:
        return self.gates.replace("c", "g") or "ifgo"

    def _require_arrays(self) -> None:
        super()._require_arrays()
        if self.peepholes is not None and np.size(self.peepholes) != 3 * self.directions * self.units:
            raise ValueError(
                f"peepholes has shape {np.shape(self.peepholes)}, expected {(self.directions, 3 * self.units)}"
            )

    def _own_fields(self) -> dict[str, Any]:
        return {
            "first_c": self._of_directions(self.first_c),
            "peepholes": self._of_directions(self.peepholes, 3),
            "coupled": self.coupled,
        }


@dataclass(frozen=True, eq=False, repr=False)
class GRU(Recurrent):
    """Gated recurrent unit: ``h = (1 - z) n + z h'`` with ``n = G(W_n x + b_n + r (U_n h' + b'_n))``.

    The gates r and z count as constants in relevance. See :class:`Recurrent` for inputs, outputs and the other
    parameters.

    Parameters
    ----------
    gates : str, default "rzn"
        The order of the gates in the arrays: torch's; ONNX and Keras have ``"zrn"``.
    reset_after : bool, default True
        Whether the reset gate multiplies the product with the state and ``recurrent_bias``, as in torch and Keras
        (ONNX: ``linear_before_reset=1``), or the state before it: ``n = G(W_n x + b_n + U_n (r h') + b'_n)``.
    """

    reset_after: bool = field(default=True, kw_only=True)
    kind: ClassVar[str] = "gru"
    order: ClassVar[str] = "zrn"
    usual: ClassVar[tuple[str, ...]] = ("sigmoid", "tanh")

    def _letters(self) -> str:
        return self.gates.replace("u", "z").replace("h", "n") or "rzn"

    def _own_fields(self) -> dict[str, Any]:
        return {"reset_after": self.reset_after}


@dataclass(frozen=True, eq=False, repr=False)
class RNN(Recurrent):
    """Simple recurrent layer: ``h = G(W x + b + U h' + b')``, G is tanh unless ``activations=("relu",)`` or another.

    See :class:`Recurrent` for inputs, outputs and the other parameters.
    """

    kind: ClassVar[str] = "rnn"
    order: ClassVar[str] = "n"
    usual: ClassVar[tuple[str, ...]] = ("tanh",)
