"""Layer-wise relevance propagation on the CPU: arrays in, relevance out, every lost bit accounted for.

The public names; each module says at its top what it is for.
"""

import typing as _typing
from importlib import import_module as _import_module
from importlib.metadata import version as _version
from importlib.util import find_spec as _find_spec

if _find_spec("pylrp._core") is None:
    raise ImportError(
        f"pylrp's compiled core is not beside {__file__}: this is the source folder, not an installed pylrp. "
        "Run `pip install .` there and start Python in another folder."
    )

from pylrp import layers
from pylrp._moved import keep_old_names as _keep_old_names
from pylrp.api import relevance
from pylrp.comparison import Comparison, compare
from pylrp.errors import (
    AbsorbedValue,
    BrokenFile,
    FeatureMismatch,
    MisplacedBox,
    MissingModel,
    MissingRule,
    NotFinite,
    NotInVocabulary,
    UndecidedGate,
    UnfitInput,
    UnfitInputType,
    UnfitLength,
    UnfitTarget,
    UnfitTargetType,
    UnknownOption,
    UnsuitablePrecision,
    UnsuitableRule,
    UnsupportedLayer,
)
from pylrp.info import get_threads, info, set_threads
from pylrp.loaders import load
from pylrp.memory import kept_memory, release_memory, set_kept_memory
from pylrp.network.explanation import Explanation
from pylrp.network.ledger import Ledger
from pylrp.network.network import Network
from pylrp.rules.catalogue import AlphaBeta, Epsilon, Flat, Gamma, Norm, Pass, WSquare, ZBox, Zero, ZPlus
from pylrp.rules.composites import COMPOSITES, Composite, composite
from pylrp.rules.terms import Rule

__version__ = _version("pylrp")
_keep_old_names(__name__)

# What draws, evaluates, reports and verifies is loaded when it is asked for: `import pylrp` stays light.
_LATER = ("dask", "evaluate", "plot", "report", "stream", "verify")

if _typing.TYPE_CHECKING:
    from pylrp import dask as dask
    from pylrp import evaluate as evaluate
    from pylrp import plot as plot
    from pylrp import report as report
    from pylrp import stream as stream
    from pylrp import verify as verify
    from pylrp.report import Report as Report
else:  # else every name would be one to a type checker

    def __getattr__(name: str) -> object:
        if name in _LATER:
            return _import_module(f"pylrp.{name}")
        if name == "Report":
            return _import_module("pylrp.report").Report
        raise AttributeError(f"module 'pylrp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, "Report"})


__all__ = [
    "COMPOSITES",
    "AbsorbedValue",
    "AlphaBeta",
    "BrokenFile",
    "Comparison",
    "Composite",
    "Epsilon",
    "Explanation",
    "FeatureMismatch",
    "Flat",
    "Gamma",
    "Ledger",
    "MisplacedBox",
    "MissingModel",
    "MissingRule",
    "Network",
    "Norm",
    "NotFinite",
    "NotInVocabulary",
    "Pass",
    "Rule",
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
    "WSquare",
    "ZBox",
    "ZPlus",
    "Zero",
    "__version__",
    "compare",
    "composite",
    "get_threads",
    "info",
    "kept_memory",
    "layers",
    "load",
    "release_memory",
    "relevance",
    "set_kept_memory",
    "set_threads",
]
