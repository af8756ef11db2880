"""Rules of layers without weights: the kinds there are, which rules fit each, which one it gets where none is named.

A layer states its kind (`Layer.rule_kind`). ``composites.py`` chooses by these kinds, ``assignment.py`` refuses what
does not fit. ``docs/architecture.md`` has the same table with its reasons and sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pylrp.rules.catalogue import Epsilon, Norm, Pass, Zero
from pylrp.rules.terms import Rule, Term
from pylrp.rules.treatments import (
    Detach,
    DetachAll,
    Gate,
    Gradient,
    Half,
    Signal,
    Spread,
    Stop,
    Taylor,
    Treatment,
    Value,
)

__all__ = ["LAST_FOR_PATTERNS", "WEIGHTLESS", "Weightless"]


@dataclass(frozen=True)
class Weightless:
    """A kind of layers without weights, as composites know it.

    Attributes
    ----------
    layers : str
        Which layers are of this kind.
    default : Rule
        What they get from a composite that names no other.
    in_proportion : bool
        Whether relevance may go in proportion to contributions: :class:`~pylrp.rules.Norm`, ``Epsilon``, ``Zero``, or
        a rule of a user's own that reads the input as it is.
    may_pass : bool
        Whether it may go through unchanged: :class:`~pylrp.rules.Pass`.
    treatments : tuple of type
        The layer's own formulas, by name.
    own : tuple of type
        The rules that say what the layer does without one: the core is not told of them.
    unfit : str
        Why other rules do not fit.
    refused : mapping of type to str
        The same for a rule that people ask for.
    """

    layers: str
    default: Rule
    in_proportion: bool = True
    may_pass: bool = False
    treatments: tuple[type[Treatment], ...] = ()
    own: tuple[type[Rule], ...] = ()
    unfit: str = "does not fit a layer of kind {kind}, which has no weights"
    refused: Mapping[type[Rule], str] = field(default_factory=dict)

    def why_unfit(self, kind: str, rule: Rule) -> str:
        """Return why a rule does not fit layers of this kind."""
        return next((why for each, why in self.refused.items() if isinstance(rule, each)), self.unfit.format(kind=kind))

    def is_own(self, rule: Rule) -> bool:
        """Whether a rule says what the layer does without one."""
        return isinstance(rule, self.own) or (Pass in self.own and rule.passes)

    def fits(self, rule: Rule) -> bool:
        """Whether a rule has a meaning for such a layer."""
        if isinstance(rule, Treatment):
            return isinstance(rule, self.treatments)
        if rule.passes:
            return self.may_pass
        groups = rule.groups()
        return (
            self.in_proportion
            and len(groups) == 1
            and groups[0].terms == (Term("input"),)
            and groups[0].coefficient == 1
        )

    @property
    def rules(self) -> tuple[str, ...]:
        """Return the names of the rules that fit, for people to read."""
        shared = (Norm, Epsilon, Zero) if self.in_proportion else ()
        fit = (*self.treatments, *shared, *((Pass,) if self.may_pass else ()))
        return tuple(rule.__name__ for rule in fit)


#: By kind. A layer of kind "batchnorm" that no layer with weights stands below is of kind "scaling" for rules.
WEIGHTLESS: Mapping[str, Weightless] = {
    "pool": Weightless("average pools; not max pools", Norm()),
    "add": Weightless("sums of values: skip connections", Norm()),
    "batchnorm": Weightless(
        "BatchNorm and other factors with a shift, where they could not be folded", Norm(), may_pass=True
    ),
    "scaling": Weightless("the same with no layer with weights below", Pass(), may_pass=True),
    "resize": Weightless("linear resizing; not nearest", Norm()),
    "function": Weightless(
        "functions of one value: ReLU, GELU, PReLU, ...", Pass(), may_pass=True, treatments=(Gradient,), own=(Pass,)
    ),
    "softmax": Weightless("softmax inside a network", Taylor(), in_proportion=False, treatments=(Taylor, Stop)),
    "normalisation": Weightless(
        "LayerNorm, GroupNorm, InstanceNorm; RMSNorm, Normalize, LocalResponseNorm, through which relevance may pass",
        Detach(),
        in_proportion=False,
        may_pass=True,
        treatments=(Detach, DetachAll, Gradient),
        own=(Pass, Detach, DetachAll),
    ),
    "matmul": Weightless(
        "products of two computed values as matrices: attention",
        Half(),
        in_proportion=False,
        treatments=(Half, Value, Gradient),
    ),
    "recurrent": Weightless(
        "LSTM, GRU and RNN, whose weights only the cell gate's sums hand relevance through",
        Signal(),
        treatments=(Signal, Spread),
        own=(Signal,),
        unfit="does not fit a recurrent layer, whose gates are constants under every rule",
        refused={
            Half: "would hand a half to the gates of a recurrent layer: through sigmoid(z) relevance grows without "
            "bound where z is near 0, to 4.6e9 times the score in a trained GRU"
        },
    ),
    "product": Weightless(
        "products of two values: gates", Signal(), in_proportion=False, treatments=(Signal, Half, Gate, Gradient)
    ),
}

#: Kinds that a pattern of names reaches only where it fits nothing else: ``"block1.*"`` is not meant for activations.
LAST_FOR_PATTERNS = ("function", "softmax", "normalisation", "matmul", "product")
