"""Networks: the graph of layers, what is simplified in it, and what is asked of it. Hands ``Network`` on.

``graph.py`` and ``layout.py`` say what a network is and how its values lie in memory; ``canonise`` and
``composition.py`` simplify it, ``lowering.py`` hands it to the compiled core, ``requests.py`` settles what a user asks,
``network.py`` calls them all, ``explanation.py`` and ``ledger.py`` are what comes back.

The names are looked up when they are used: layers and loaders need ``graph.py`` and ``layout.py`` alone.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from pylrp.network.graph import Graph as Graph
    from pylrp.network.graph import Node as Node
    from pylrp.network.network import Network as Network
else:
    # _again is what networks were pickled with when this package was a module.
    _HOMES = {"Graph": "graph", "Node": "graph", "Network": "network", "_again": "network"}

    def __getattr__(name: str) -> object:
        if name in _HOMES:
            return getattr(_import_module(f"pylrp.network.{_HOMES[name]}"), name)
        raise AttributeError(f"module 'pylrp.network' has no attribute {name!r}")


__all__ = ["Graph", "Network", "Node"]
