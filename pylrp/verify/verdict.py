"""What a comparison comes to: which layer deviates first, and one sentence. ``against.py`` calls :func:`judged`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pylrp.verify.fused_attention import FusedAttention
from pylrp.verify.verification import Deviation, LayerCheck, Verification

__all__ = ["Found", "judged"]

#: What a prediction may be off at least: other evaluators have settings, 0.1 for example, in single precision.
_PREDICTION = 1e-6
#: How many times the error that the same formulas make in float32.
_OF_ROUNDING = 10.0


@dataclass(frozen=True)
class Found:
    """Errors of a comparison, by value of the network.

    Attributes
    ----------
    values, incoming, prediction : mapping of str to float
        Of values, of relevance, and of outputs.
    rounding : mapping of str to float
        What float32 alone does to relevance, where it was measured.
    prediction_rounding : mapping of str to float
        What float32 alone does to outputs of the file's nodes, where it was measured.
    coarseness : float
        How many times as coarsely the file's numbers are rounded as float32.
    tolerance : float
    evaluator : str
    notes : sequence of str
    inputs : sequence of str
        The network's inputs that are in the file.
    culprit : callable
        Returns the layer that hands the wrong relevance to a value.
    maker : callable
        Returns the layer that has computed a layer's values.
    fused : FusedAttention or None
        What attention that is one layer in the core makes of a plain call.
    fused_rounding : mapping of str to float
        By how much outputs, and relevance of inputs, differ where quantised values between two numbers are rounded
        the other way.
    fused_culprit : callable
        Returns the name of the attention that is wrong there.
    """

    values: Mapping[str, float]
    incoming: Mapping[str, float]
    prediction: Mapping[str, float]
    rounding: Mapping[str, float]
    prediction_rounding: Mapping[str, float]
    coarseness: float
    tolerance: float
    evaluator: str
    notes: Sequence[str]
    inputs: Sequence[str]
    culprit: Callable[[str], str]
    maker: Callable[[str], str]
    fused: FusedAttention | None
    fused_rounding: Mapping[str, float]
    fused_culprit: Callable[[], str]

    def limit(self, name: str) -> float:
        """Return what the relevance of a value may be off: where rounding alone does more, a few times that."""
        return max(self.tolerance, _OF_ROUNDING * self.rounding.get(name, 0.0))

    def fused_is_right(self) -> bool:
        """Tell whether fused attention changes neither outputs nor relevance by more than rounding."""
        if self.fused is None:
            return True
        chance = {name: _OF_ROUNDING * error for name, error in self.fused_rounding.items()}
        return all(
            error <= max(self.limit(name) if which is self.fused.relevance else self.tolerance, chance.get(name, 0.0))
            for which in (self.fused.relevance, self.fused.output)
            for name, error in which.items()
        )

    def predicts(self, name: str) -> bool:
        """Tell whether an output is the evaluator's, which computes in single precision, or in the file's 16 bits."""
        rounding = self.coarseness * self.prediction_rounding.get(name, 0.0)
        limit = max(self.tolerance, _PREDICTION, _OF_ROUNDING * rounding)
        return self.prediction[name] <= limit


@dataclass(frozen=True)
class _First:
    """What deviates first."""

    deviation: Deviation | None = None
    layer: LayerCheck | None = None
    error: float = 0.0


def judged(layers: Sequence[LayerCheck], found: Found) -> Verification:
    """Return the result of a comparison."""
    first = _first(layers, found)
    prediction = max(found.prediction.values(), default=0.0)
    if first.deviation is None and not all(map(found.predicts, found.prediction)):
        first = _First("prediction", None, prediction)
    if first.deviation is None and found.fused is not None and not found.fused_is_right():
        wrong = found.fused_culprit()
        first = _First("attention", next(layer for layer in layers if layer.name == wrong), found.fused.error)
    relevance = max(found.incoming.values(), default=0.0)
    notes = list(found.notes)
    if first.deviation is None and relevance > found.tolerance:
        most = max(found.rounding.values())
        notes.append(f"relevance is sensitive to rounding here: the same formulas in float32 change it by {most:.1e}")
    if first.deviation is None and prediction > max(found.tolerance, _PREDICTION):
        most = max(found.prediction_rounding.values())
        notes.append(
            f"the file's prediction is sensitive to rounding: its nodes in float32 change it by {most:.1e}, "
            "beside the same in float64, whose values the network has"
            + ("; other programs compute this one in 16 bits" if found.coarseness > 1 else "")
        )
    made = Verification(
        passed=first.deviation is None,
        verdict="",
        first_wrong=None if first.layer is None else first.layer.name,
        deviation=first.deviation,
        layers=tuple(layers),
        prediction_error=prediction,
        relevance_error=relevance,
        ledger_error=max((layer.rounding or 0.0 for layer in layers), default=0.0),
        tolerance=found.tolerance,
        evaluator=found.evaluator,
        compared=(len(found.values), len(found.incoming)),
        notes=tuple(dict.fromkeys(notes)),
        fused_error=None if found.fused is None else found.fused.error,
    )
    return replace(made, verdict=_sentence(made, first))


def _first(layers: Sequence[LayerCheck], found: Found) -> _First:
    """Return what is wrong first: of values from the bottom, of relevance and the ledger from the top."""
    by_name = {layer.name: layer for layer in layers}
    for layer in layers:
        if layer.value_error is not None and not layer.value_error <= found.tolerance:
            return _First("values", by_name[found.maker(layer.name)], layer.value_error)
    for layer in reversed(layers):
        if layer.incoming_error is not None and not layer.incoming_error <= found.limit(layer.name):
            return _First("relevance", by_name[found.culprit(layer.name)], layer.incoming_error)
    for layer in reversed(layers):
        if layer.rounding is not None and not layer.rounding <= found.tolerance:
            return _First("ledger", layer, layer.rounding)
    if not any(name in found.incoming for name in found.inputs):  # nothing has been shown
        return _First("relevance")
    return _First()


def _sentence(made: Verification, first: _First) -> str:
    layer, beyond = first.layer, f"{first.error:.1e} of the largest, more than {made.tolerance:g}"
    what = "" if layer is None else f"{layer.name!r} ({layer.kind}{', ' + layer.rule if layer.rule else ''})"
    if made.deviation == "values":
        return f"Failed: layer {what} computes other values than the file: {beyond}."
    if made.deviation == "relevance" and layer is None:
        return "Failed: the relevance of no input could be compared: is this the network's model?"
    if made.deviation == "relevance":
        return f"Failed: layer {what} hands down other relevance than its formula gives: {beyond}."
    if made.deviation == "ledger":
        return f"Failed: the ledger of layer {what} does not close: {first.error:.1e} of the relevance is lost."
    if made.deviation == "attention":
        return (
            f"Failed: fused attention, its product with the values {what}, gives another output or relevance of the "
            f"inputs than its nodes one by one: {beyond}."
        )
    if made.deviation == "prediction":
        return f"Failed: the prediction differs from the file's: {beyond}."
    fused = "" if made.fused_error is None else f"fused attention within {made.fused_error:.1e}, "
    return (
        f"Passed: prediction within {made.prediction_error:.1e} of {made.evaluator}'s, relevance of "
        f"{made.compared[1]} values within {made.relevance_error:.1e}, {fused}ledger within {made.ledger_error:.1e}; "
        f"{made.tolerance:g} is allowed."
    )
