"""Rules and precisions that do not fit where they are asked for."""

from __future__ import annotations

__all__ = [
    "AbsorbedValue",
    "MisplacedBox",
    "MissingRule",
    "UnsuitablePrecision",
    "UnsuitableRule",
]


class UnsuitableRule(ValueError):
    """A rule that does not fit the layer that it is given to.

    Parameters
    ----------
    node : str
        The layer.
    rule : str
    reason : str
        Why not, as the rest of a sentence that begins with the rule.
    way_out : str
        Which rules to take.

    Attributes
    ----------
    node, rule, reason, way_out : str
    """

    def __init__(self, node: str, rule: str, reason: str, way_out: str):
        super().__init__(f"layer {node}: {rule} {reason}: {way_out}")
        self.node, self.rule, self.reason, self.way_out = node, rule, reason, way_out

    def __reduce__(self) -> tuple[type[UnsuitableRule], tuple[str, str, str, str]]:
        """Return how to make it again, in another process for example."""
        return type(self), (self.node, self.rule, self.reason, self.way_out)


class UnsuitablePrecision(ValueError):
    """A precision that there is none of, or that does not go with the dtype of the arrays.

    Parameters
    ----------
    precision : object
        What was asked for.
    dtype : str
        In which everything is computed.
    reason : str

    Attributes
    ----------
    precision : object
    dtype, reason : str
    """

    def __init__(self, precision: object, dtype: str, reason: str):
        super().__init__(f"precision={precision!r}: {reason}")
        self.precision, self.dtype, self.reason = precision, dtype, reason

    def __reduce__(self) -> tuple[type[UnsuitablePrecision], tuple[object, str, str]]:
        """Return how to make it again, in another process for example."""
        return type(self), (self.precision, self.dtype, self.reason)


class MisplacedBox(ValueError):
    """A z-box has no layer, or one that its bounds do not belong to.

    Parameters
    ----------
    node : str or None
        The layer; None where there is none.
    rule : str
    reason, way_out : str

    Attributes
    ----------
    node, rule : str
    """

    def __init__(self, node: str | None, rule: str, reason: str, way_out: str):
        super().__init__(f"{reason}: {way_out}")
        self.node = node
        self.rule = rule
        self._parts = (node, rule, reason, way_out)

    def __reduce__(self) -> tuple[type[MisplacedBox], tuple[str | None, str, str, str]]:
        """Return how to make it again in another process."""
        return type(self), self._parts


class AbsorbedValue(KeyError, ValueError):
    """A value has no relevance of its own: it is inside a layer under that layer's rule.

    Parameters
    ----------
    value, layer, rule : str

    Attributes
    ----------
    value, layer, rule : str
    """

    def __init__(self, value: str, layer: str, rule: str):
        super().__init__(
            f"{value!r} has no relevance of its own: under {rule} it is part of layer {layer!r}, whose relevance goes "
            f"straight to the input. Ask for another value, or give the layer a rule that looks at its input, "
            f"Composite(..., names={{{layer!r}: pylrp.ZPlus()}})"
        )
        self.value, self.layer, self.rule = value, layer, rule

    def __str__(self) -> str:  # a KeyError shows its text in quotes
        return str(self.args[0])

    def __reduce__(self) -> tuple[type[AbsorbedValue], tuple[str, str, str]]:
        """Return how to make it again in another process."""
        return type(self), (self.value, self.layer, self.rule)


class MissingRule(ValueError):
    """A library lacks a rule, so that its convention can't be followed.

    Parameters
    ----------
    convention : str
        The library: "captum", "innvestigate", ...
    rule : str
    kind : str
        The rule's class.
    has : str
        The rules that the library has.

    Attributes
    ----------
    convention, rule, kind, has : str
    """

    def __init__(self, convention: str, rule: str, kind: str, has: str):
        super().__init__(f"{convention} has no {kind} rule ({rule}); it has {has}")
        self.convention, self.rule, self.kind, self.has = convention, rule, kind, has

    def __reduce__(self) -> tuple[type[MissingRule], tuple[str, str, str, str]]:
        """Return how to make it again in another process."""
        return type(self), (self.convention, self.rule, self.kind, self.has)
