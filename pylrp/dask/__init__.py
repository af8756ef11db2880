"""Explain Dask arrays: lazy in, lazy out, on whatever scheduler Dask has. Dask is imported here: ``pip install dask``.

``arrays.py`` makes the lazy arrays, ``worker.py`` is what runs in a worker, with the network that reaches it once.
"""

from pylrp.dask.arrays import DaskExplanation, explain
from pylrp.dask.worker import Explainer

__all__ = ["DaskExplanation", "Explainer", "explain"]
