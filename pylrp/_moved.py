"""Modules that stood elsewhere in 0.1: their old names keep working in imports and in pickles.

``pylrp/__init__.py`` calls in. All of these modules are loaded with the package anyhow; the old name is a second one.
"""

import sys
from importlib import import_module

__all__ = ["keep_old_names"]

#: What 0.1 called a module, and what it is called now.
OLD_NAMES = {
    "assignment": "rules.assignment",
    "composites": "rules.composites",
    "conventions": "rules.conventions",
    "explanation": "network.explanation",
    "graph": "network.graph",
    "ledger": "network.ledger",
    "lowering": "network.lowering",
    "requests": "network.requests",
    "canonise": "network.canonise",
    "summary": "network.summary",
    "layers.linear": "layers",
}
#: Names that left a module which is still there.
_LEFT: dict[str, dict[str, tuple[str, ...]]] = {
    "rules": {"rules.terms": ("_Default",)},
    "layers.movement": {
        "layers.slices": ("Pad", "Slice", "Take"),
        "layers.blocks": ("ChannelShuffle", "DepthToSpace", "SpaceToDepth", "Upsample"),
    },
}


def keep_old_names(package: str) -> None:
    """Make ``import pylrp.graph`` and the like the same as importing the module that holds those names now."""
    for old, new in OLD_NAMES.items():
        module = import_module(f"{package}.{new}")
        sys.modules[f"{package}.{old}"] = module
        above, _, last = f"{package}.{old}".rpartition(".")
        setattr(sys.modules[above], last, module)
    for old, homes in _LEFT.items():
        for new, names in homes.items():
            for name in names:
                setattr(sys.modules[f"{package}.{old}"], name, getattr(import_module(f"{package}.{new}"), name))
