"""Replacements of a removed region: a mean, a blurred image, numbers, or an imputation from its surroundings.

``flipping.py`` calls :func:`constant` for replacements that depend on the input alone; :class:`Inpainter` depends on
the regions that are removed already.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylrp.evaluate.evaluated_batch import Array, EvaluatedBatch, Values
from pylrp.layers.base import Shape

__all__ = ["Inpainter", "Replacement", "blurred", "constant"]

Replacement = Literal["mean", "blur", "inpaint"] | float | ArrayLike

_BLUR = 0.1  # of the longest side: strokes and outlines are gone, brightness and colour stay
_NOISE = 0.01  # of each channel's standard deviation


def constant(evaluated: EvaluatedBatch, replacement: Replacement) -> Array:
    """Return what replaces each number of the input, (batch, n)."""
    if isinstance(replacement, str):
        if replacement == "mean":
            return _mean(evaluated)
        if replacement == "blur":
            return evaluated.as_taken(blurred(evaluated.channels_first(evaluated.flat)))
        raise ValueError(f"replacement is {replacement!r}, expected 'mean', 'blur', 'inpaint', a number or an array")
    values = np.asarray(replacement, evaluated.flat.dtype)
    if not np.isfinite(values).all():
        raise ValueError("replacement holds values that are NaN or infinite")
    try:
        filled = np.broadcast_to(values, evaluated.x.shape)
    except ValueError:
        raise ValueError(
            f"replacement has shape {values.shape}, which does not broadcast to x, {evaluated.x.shape}"
        ) from None
    return np.ascontiguousarray(filled).reshape(evaluated.flat.shape)


def _mean(evaluated: EvaluatedBatch) -> Array:
    """Of each channel of a sample; of features without positions, of each over the batch."""
    if len(evaluated.shape) > 1:
        image = evaluated.channels_first(evaluated.flat)
        mean = image.mean(axis=tuple(range(2, image.ndim)), keepdims=True, dtype=np.float64)
        return evaluated.as_taken(np.broadcast_to(mean, image.shape))
    if len(evaluated) == 1:
        raise ValueError(
            "replacement='mean' takes each feature's mean over the batch, and x is one sample: pass an array, the mean "
            "of the training data for example"
        )
    mean = evaluated.flat.mean(axis=0, dtype=np.float64, keepdims=True)
    return np.ascontiguousarray(np.broadcast_to(mean, evaluated.flat.shape), evaluated.flat.dtype)


def blurred(image: Array, sigma: float | None = None) -> Array:
    """Return (batch, channels, ...) after a Gaussian of ``sigma`` pixels along each axis.

    Default: 1/10 of the longest axis. At the edges the Gaussian is cut off and normalised again: what is constant stays
    as it is.
    """
    spatial = image.shape[2:]
    if not spatial:
        raise ValueError("replacement='blur' needs neighbours, and x has none: pass layout= if it is a flat image")
    width = _BLUR * max(spatial) if sigma is None else sigma
    for axis, n in enumerate(spatial, start=2):
        distance = np.arange(n)[:, None] - np.arange(n)
        weights = np.exp(-0.5 * (distance / width) ** 2)
        weights /= weights.sum(axis=1, keepdims=True)
        image = np.moveaxis(np.moveaxis(image, axis, -1) @ weights.T, -1, axis)
    return image


class Inpainter:
    """Noisy linear imputation (Rong et al. 2022, "A consistent and efficient evaluation strategy for attribution").

    A removed pixel becomes the weighted mean of its neighbours: for all of them at once, a sparse system of linear
    equations,

        sum_j w_ij (x_i - x_j) = 0,    w = 1/6 for direct and 1/12 for diagonal neighbours inside the image,

    and then gets noise of 1/100 of its channel's standard deviation. The removed region can't be told from its
    surroundings by a sharp edge, so that the network is not shown the mask, which by itself may give the class away.

    Parameters
    ----------
    evaluated : EvaluatedBatch
        With one or two spatial axes; along one the weights are equal.
    rng : numpy.random.Generator
    """

    def __init__(self, evaluated: EvaluatedBatch, rng: np.random.Generator):
        try:
            from scipy.sparse import linalg
        except ImportError as error:
            raise ImportError('replacement="inpaint" needs SciPy: pip install scipy') from error
        if len(evaluated.shape) not in (2, 3):
            raise ValueError(f"replacement='inpaint' takes signals and images, a sample has shape {evaluated.shape}")
        self._solve = linalg.spsolve
        self._evaluated = evaluated
        image = evaluated.channels_first(evaluated.flat).astype(np.float64)
        self._pixels: Values = image.reshape(*image.shape[:2], -1)
        spread = self._pixels.std(axis=2, keepdims=True)
        self._noise: Values = _NOISE * spread * rng.standard_normal(self._pixels.shape)
        self._laplacian = _laplacian(evaluated.shape[1:])

    def fill(self, removed: NDArray[np.bool_]) -> Array:
        """Return the samples, (batch, n), with the pixels of a mask (batch, pixels) filled in."""
        filled = self._pixels.copy()
        for sample, mask in enumerate(removed):
            if mask.all():  # nothing is left to start from
                filled[sample] = self._pixels[sample].mean(axis=1, keepdims=True)
            elif mask.any():
                rows = self._laplacian[mask]
                known = rows[:, ~mask] @ self._pixels[sample][:, ~mask].T
                filled[sample][:, mask] = self._solve(rows[:, mask].tocsc(), -known).reshape(-1, len(filled[sample])).T
        filled += self._noise * removed[:, None]
        return self._evaluated.as_taken(filled.reshape(len(filled), *self._evaluated.shape))


def _laplacian(spatial: Shape) -> Any:
    """Return the sparse matrix whose row i is ``sum_j w_ij (x_i - x_j)``."""
    from scipy.sparse import coo_matrix, diags

    index = np.arange(int(np.prod(spatial))).reshape(spatial)
    steps = (
        [((1,), 1 / 2)]
        if len(spatial) == 1
        else [((0, 1), 1 / 6), ((1, 0), 1 / 6), ((1, 1), 1 / 12), ((1, -1), 1 / 12)]
    )
    rows, columns, weights = [], [], []
    for step, weight in steps:
        here = index[tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, spatial, strict=True))].reshape(-1)
        there = index[tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(step, spatial, strict=True))].reshape(-1)
        rows += [here, there]
        columns += [there, here]
        weights += [np.full(2 * len(here), weight)]
    joined = coo_matrix((np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))).tocsr()
    return (diags(np.asarray(joined.sum(axis=1)).reshape(-1)) - joined).tocsr()
