"""The errors of pylrp's own: layers, files, numbers and columns that don't do. All are ValueErrors.

Loaders raise UnsupportedLayer for operators they don't know, ``network.py`` for layers that have no rule where they
stand; loaders raise BrokenFile for files that are not what they say; ``finite.py`` and ``_arrays.py`` raise NotFinite,
``tables.py`` FeatureMismatch; ``requests.py`` and ``lengths.py`` UnfitInput, ``targets.py`` UnfitTarget, ``sides.py``
NotInVocabulary; ``assignment.py`` and ``network.py`` MisplacedBox, AbsorbedValue and UnsuitableRule, on
z-boxes, on values inside a layer, on rules that do not fit theirs; ``gates.py`` UndecidedGate, on products;
``conventions.py`` MissingRule, ``Network.verify`` MissingModel. Inputs and targets of a wrong kind are TypeErrors, too;
only UnknownOption, of ``pylrp.load``, is nothing else.
"""

from pylrp.errors.inputs import FeatureMismatch, NotFinite, NotInVocabulary, UnfitInput, UnfitInputType, UnfitLength
from pylrp.errors.models import BrokenFile, BrokenNode, MissingModel, UndecidedGate, UnknownOption, UnsupportedLayer
from pylrp.errors.rules import AbsorbedValue, MisplacedBox, MissingRule, UnsuitablePrecision, UnsuitableRule
from pylrp.errors.targets import UnfitTarget, UnfitTargetType

__all__ = [
    "AbsorbedValue",
    "BrokenFile",
    "BrokenNode",
    "FeatureMismatch",
    "MisplacedBox",
    "MissingModel",
    "MissingRule",
    "NotFinite",
    "NotInVocabulary",
    "UndecidedGate",
    "UnfitInput",
    "UnfitInputType",
    "UnfitLength",
    "UnfitTarget",
    "UnfitTargetType",
    "UnknownOption",
    "UnsuitablePrecision",
    "UnsuitableRule",
    "UnsupportedLayer",
]
