"""Is an explanation right? An evaluation of ONNX models of its own, and a network's comparison with it.

``program.py`` reads a file, ``operators.py`` computes it, ``tape.py`` takes relevance back; none of them knows the
core, the loaders or the layers. ``against.py`` compares. Needs the package onnx.
"""

from __future__ import annotations

from pylrp.verify.reference import KINDS, Reference, reference_relevance
from pylrp.verify.verification import LayerCheck, Verification

__all__ = ["KINDS", "LayerCheck", "Reference", "Verification", "reference_relevance"]
