"""Rules: the catalogue (``catalogue.py``), composites of them, other libraries' numerics, and which node gets which.

``pylrp.rules.Gamma`` and the others of the catalogue are what users import, and the treatments of layers that have no
weights (``treatments.py``).
"""

from pylrp.rules.catalogue import *  # noqa: F403
from pylrp.rules.catalogue import __all__ as _catalogue
from pylrp.rules.treatments import (
    TREATMENTS,
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
from pylrp.rules.weightless import WEIGHTLESS

__all__ = [
    *_catalogue,
    "TREATMENTS",
    "WEIGHTLESS",
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
