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
}


def keep_old_names(package: str) -> None:
    """Make ``import pylrp.graph`` and the like the same as importing the module that holds those names now."""
    for old, new in OLD_NAMES.items():
        module = import_module(f"{package}.{new}")
        sys.modules[f"{package}.{old}"] = module
        setattr(sys.modules[package], old, module)
