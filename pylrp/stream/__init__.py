"""Explain more than fits into memory, in a process that may be killed at any time and goes on where it was.

``run.py`` reads, explains and writes blocks of samples, three at a time; ``sources.py`` and ``records.py`` have what is
read, ``sinks.py`` and ``parquet.py`` what is written, ``journal.py`` what is safely done, ``reductions.py`` and
``curves.py`` what is computed on the way. zarr, h5py and pyarrow are imported where they are used: the extra
``stream``.
"""

from pylrp.stream.curves import FlippingCurves
from pylrp.stream.journal import BadRecord, DifferentRun
from pylrp.stream.reductions import ClassMeans, LedgerSum, Reduction, TopFeatures
from pylrp.stream.result import StreamResult
from pylrp.stream.run import explain

__all__ = [
    "BadRecord",
    "ClassMeans",
    "DifferentRun",
    "FlippingCurves",
    "LedgerSum",
    "Reduction",
    "StreamResult",
    "TopFeatures",
    "explain",
]
