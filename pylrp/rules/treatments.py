"""Rules of layers that have a formula of their own: each names one of the ways in which such a layer is explained.

``weightless.py`` has the kinds of layers that each fits. The layer's C++ file holds the formula; the core takes the
name. Notation: ``a`` input, ``z`` output, ``R`` relevance of the output, ``c = R / z`` its coefficient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pylrp.rules.terms import Group, Rule

__all__ = [
    "TREATMENTS",
    "Detach",
    "DetachAll",
    "Gate",
    "Gradient",
    "Half",
    "Signal",
    "Spread",
    "Stop",
    "Taylor",
    "Treatment",
    "Value",
]


@dataclass(frozen=True, repr=False)
class Treatment(Rule):
    """Base of the rules that are a name: the layer has the formula."""

    #: What the core calls it.
    treatment: ClassVar[str]

    def groups(self) -> tuple[Group, ...]:
        """Return none: there are no products with weights."""
        return ()


@dataclass(frozen=True, repr=False)
class Taylor(Treatment):
    """Softmax by its first-order Taylor expansion: ``R_i = x_i (R_i - P_i sum_k R_k)``, ``R_k`` of the output ``P``.

    It does not conserve: the constant of the expansion keeps ``sum_k R_k - sum_i R_i``, in the ledger under
    ``softmax``.

    References
    ----------
    Achtibat et al., "AttnLRP", ICML 2024, proposition 3.1.
    """

    treatment: ClassVar[str] = "taylor"


@dataclass(frozen=True, repr=False)
class Stop(Treatment):
    """Softmax as a constant: its input receives nothing, all relevance is in the ledger under ``softmax``.

    References
    ----------
    Ali et al., "XAI for Transformers: better explanations through conservative propagation", ICML 2022.
    """

    treatment: ClassVar[str] = "stop"


@dataclass(frozen=True, repr=False)
class Detach(Treatment):
    """Normalisation with its scale, a statistic of the input, as a constant: what is left is linear.

    For ``y = x / d(x) * g`` relevance passes unchanged. For ``y = (x - mean(x)) / d(x) * g + b`` the mean is the linear
    map that it is: ``R_in = x (t - mean(t))`` with ``t = g / d * R / y``; ``b`` takes ``b R / y`` like a bias.

    References
    ----------
    Ali et al. 2022, section 4.2 (LN-rule); Achtibat et al. 2024, section 3.3.
    """

    treatment: ClassVar[str] = "detach"


@dataclass(frozen=True, repr=False)
class DetachAll(Treatment):
    """Normalisation with its scale and its mean as constants. Without a mean the same as :class:`Detach`.

    ``R_in = x t`` with ``t = g / d * R / y``; the mean's share, ``-mean(x) t``, is in the ledger under ``constant``.

    References
    ----------
    Ali et al. 2022, the authors' option for detaching the mean.
    """

    treatment: ClassVar[str] = "detach_all"


@dataclass(frozen=True, repr=False)
class Half(Treatment):
    """A product of two computed values, a half to each factor.

    Of matrices, ``C = A B``: ``R_A = A * ((R / 2 C) B^T)``, ``R_B = B * (A^T (R / 2 C))``. Where ``C = 0`` there is no
    receiver. Element by element, ``u v``: ``R_u = R_v = R / 2``.

    A composite that has it for the kind ``"product"`` means gated units such as SwiGLU, ``SiLU(g) u``, and products of
    which neither factor is a gate. Sigmoid gates keep :class:`Signal`: through ``sigmoid(z)`` relevance grows without
    bound where z is near 0. By a layer's name it is taken literally.

    References
    ----------
    Achtibat et al., "AttnLRP", ICML 2024, proposition 3.3 (without its epsilon) and section 3.3.
    """

    treatment: ClassVar[str] = "half"


@dataclass(frozen=True, repr=False)
class Value(Treatment):
    """A product of attention's probabilities ``P`` with its values ``V``: ``R_V = V * (P^T (R / C))``, ``C = P V``.

    The factor that comes from a softmax counts as a constant and receives nothing. A product of which no factor comes
    from a softmax (queries with keys) is explained by :class:`Half`.

    References
    ----------
    Ali et al., "XAI for Transformers: better explanations through conservative propagation", ICML 2022.
    """

    treatment: ClassVar[str] = "value"


@dataclass(frozen=True, repr=False)
class Signal(Treatment):
    """Product ``u v`` of a signal and a gate: the signal takes all, ``R_u = R``; the gate is a constant and takes none.

    The gate is the factor that comes from a sigmoid, hard sigmoid or softmax; where neither does, one that comes from
    SiLU, GELU or their kin. Where that does not tell them apart, :class:`Gate` says it.

    In recurrent layers all gates are constants, under every composite; what is left of a step is linear, and shared out
    in proportion to contributions without a stabiliser: ``Epsilon`` and its kin add one.

    References
    ----------
    Arras et al., "Explaining recurrent neural network predictions in sentiment analysis", WASSA 2017.
    """

    treatment: ClassVar[str] = "signal"


@dataclass(frozen=True, repr=False)
class Spread(Treatment):
    """An LSTM as under :class:`Signal`, stabilised; what stabilisers and biases take goes to all inputs in equal parts.

    This is ``bias_factor=1`` in the code of Arras et al.: each of the N numbers that a sum is made of gets
    ``1 / N sum_j (b_j + epsilon sign(z_j)) R_j / (z_j + epsilon sign(z_j))``. It is for checking sums: nothing is lost.

    Parameters
    ----------
    epsilon : float, default 0.001

    References
    ----------
    Arras et al., WASSA 2017; their LSTM_bidi.py, ``lrp_linear``.
    """

    epsilon: float = 0.001
    treatment: ClassVar[str] = "spread"

    def __post_init__(self) -> None:
        """Refuse what is no stabiliser."""
        if not 0 <= self.epsilon < float("inf"):
            raise ValueError(f"epsilon is {self.epsilon}, expected a number of at least 0")

    def __repr__(self) -> str:
        return f"Spread({self.epsilon:g})"


@dataclass(frozen=True, repr=False)
class Gate(Treatment):
    """Product of a signal and a gate as under :class:`Signal`, where the factors do not tell which is which.

    Parameters
    ----------
    signal : int or str
        The signal: 0 for the first factor, 1 for the second, or the name of that value, or of one that leads to it
        alone.

    Examples
    --------
    >>> import pylrp
    >>> pylrp.Composite("mine", pylrp.Epsilon(), names={"product": pylrp.rules.Gate(signal="features")}).names
    {'product': Gate(signal='features')}
    """

    signal: int | str

    def __post_init__(self) -> None:
        """Refuse what is no factor."""
        if not isinstance(self.signal, str) and (isinstance(self.signal, bool) or self.signal not in (0, 1)):
            raise ValueError(f"signal is {self.signal!r}, expected 0, 1 or the name of a value")

    def __repr__(self) -> str:
        return f"Gate(signal={self.signal!r})"

    @property
    def treatment(self) -> str:  # type: ignore[override]  # it depends on the factor
        """Return what the core calls it."""
        if isinstance(self.signal, str):
            raise ValueError(f"{self}: a name is a factor of a network's product, the core takes 0 or 1")
        return ("value_left", "value_right")[self.signal]


@dataclass(frozen=True, repr=False)
class Gradient(Treatment):
    """Any layer without weights by its derivative: ``R_in = a sum_k c_k dz_k/da``, input times gradient.

    No rule of LRP; with epsilon 0 in the layers with weights it makes gradient times input of a network, composite
    ``"gradient"``, to compare maps with. What the tangent at ``a`` has at 0 is in the ledger under ``constant``. Where
    ``z = 0`` there is no receiver, though a derivative may not be 0 there.

    References
    ----------
    Shrikumar et al., "Not just a black box: learning important features through propagating activation differences",
    2016.
    """

    treatment: ClassVar[str] = "gradient"


#: All of them, as RULES has the others.
TREATMENTS: tuple[type[Treatment], ...] = (Taylor, Stop, Detach, DetachAll, Half, Value, Signal, Spread, Gate, Gradient)
