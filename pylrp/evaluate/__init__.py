"""Whether a heatmap is faithful: pixel flipping, insertion and deletion, randomised weights, noise, agreement.

- ``run.py``: :func:`evaluate` runs all of it for several composites; ``evaluation.py`` has what it finds,
  ``figure.py`` draws it
- ``flipping.py``: :func:`pixel_flipping`, :func:`insertion_deletion`; ``curves.py`` has their results
- ``random_weights.py``: :func:`randomisation`; ``robustness.py``: :func:`sensitivity`
- ``map_agreement.py``: :func:`agreement`
- ``gradients.py``: :func:`gradient_times_input`, :func:`integrated_gradients`, to compare maps with
- ``tokens.py``: :func:`leave_one_out`, :func:`token_flipping`, :func:`evaluate_tokens`, for token ids
- ``segments.py``: :func:`leave_one_segment_out`, :func:`segment_flipping`, for signals over time
- ``quantus.py``: pylrp as the ``explain_func`` of Quantus
- ``evaluated_batch.py``, ``regions.py``, ``replacement.py``, ``statistics.py``: what they share

``docs/evaluation.md`` says which question each of them answers.
"""

import sys as _sys

from pylrp.evaluate import map_agreement as _agreement
from pylrp.evaluate import random_weights as _random_weights
from pylrp.evaluate import robustness as _robustness
from pylrp.evaluate.curves import Curves, InsertionDeletion
from pylrp.evaluate.evaluation import Evaluation
from pylrp.evaluate.flipping import insertion_deletion, pixel_flipping
from pylrp.evaluate.gradients import gradient_times_input, integrated_gradients
from pylrp.evaluate.map_agreement import Agreement, agreement
from pylrp.evaluate.quantus import quantus_explain, quantus_model
from pylrp.evaluate.random_weights import Randomisation, randomisation, randomised
from pylrp.evaluate.robustness import Sensitivity, sensitivity
from pylrp.evaluate.run import evaluate
from pylrp.evaluate.segments import SegmentsLeftOut, leave_one_segment_out, segment_flipping
from pylrp.evaluate.statistics import spearman
from pylrp.evaluate.tokens import TokenCurves, TokenEvaluation, evaluate_tokens, leave_one_out, token_flipping

__all__ = [
    "Agreement",
    "Curves",
    "Evaluation",
    "InsertionDeletion",
    "Randomisation",
    "SegmentsLeftOut",
    "Sensitivity",
    "TokenCurves",
    "TokenEvaluation",
    "agreement",
    "evaluate",
    "evaluate_tokens",
    "gradient_times_input",
    "insertion_deletion",
    "integrated_gradients",
    "leave_one_out",
    "leave_one_segment_out",
    "pixel_flipping",
    "quantus_explain",
    "quantus_model",
    "randomisation",
    "randomised",
    "segment_flipping",
    "sensitivity",
    "spearman",
    "token_flipping",
]

# Results that 0.1 pickled name the modules that their classes were defined in: these were called otherwise.
for _old, _module in {"cascade": _random_weights, "noise": _robustness, "pairs": _agreement}.items():
    _sys.modules[f"{__name__}.{_old}"] = _module
