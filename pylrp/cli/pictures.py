"""A picture of one explained sample: calls ``pylrp.plot`` with what is known of the input."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from pylrp.cli.session import Session
from pylrp.inputs import Entry, ImagePlan, Item
from pylrp.network.explanation import Explanation
from pylrp.network.layout import channels_moved_first
from pylrp.present.colours import BASELINE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["drawable", "picture", "require_picture"]


def require_picture(session: Session, kind: str | None) -> None:
    """Raise ImportError without matplotlib, ValueError where the inputs are nothing that can be drawn."""
    from pylrp.plot import new_figure

    new_figure(1, 1)
    shapes = session.network.graph.inputs
    if kind == "ledger":
        return
    if len(shapes) > 1:
        raise ValueError(f"no picture of {len(shapes)} inputs at once: write .npz or .html, or draw --picture ledger")
    shape = next(iter(shapes.values()))
    if not 1 <= len(shape) <= 3:
        raise ValueError(f"no picture of an input of shape {shape}: write .npz, or draw --picture ledger")


def picture(session: Session, entry: Entry, item: Item, ex: Explanation, options: dict[str, Any]) -> Figure:
    """Return the figure of one sample; ``options`` go to :func:`pylrp.plot.explanation`."""
    from pylrp.plot import explanation

    ex, known = drawable(entry, item, ex)
    kind = options.get("kind") or "default"
    # What is known of the input, as far as it belongs to this kind of picture.
    fits = {"default": known, "image": ("image", "shape"), "table": ("feature_names",), "channels": ("shape",)}
    known = {name: value for name, value in known.items() if name in fits.get(kind, ())}
    labels = None if session.labels is None else list(session.labels)
    figure: Figure = explanation(ex, labels=labels, pyplot=False, **known, **options)  # type: ignore[assignment]  # no ax was given
    heading = entry.name if item.truth is None else f"{entry.name}, true class {item.truth}"
    figure.suptitle(heading, fontsize=9, color=BASELINE)
    return figure


def drawable(entry: Entry, item: Item, ex: Explanation) -> tuple[Explanation, dict[str, Any]]:
    """Return an explanation whose axes pylrp.plot knows, and what is known of its input: image, features, shape."""
    if entry.plan is None:
        return ex, {"feature_names": item.features} if item.features else {}
    if entry.plan.layout == "NHWC" and not ex.settings["channels_last"]:
        ex = _channels_first(ex)
    return ex, {"image": item.image, **_shape(entry.plan)}


def _shape(plan: ImagePlan) -> dict[str, Any]:
    return {"shape": (plan.height, plan.width)} if plan.layout == "N" else {}


def _channels_first(ex: Explanation) -> Explanation:
    """Move the channels of a network that has them last without knowing that they are channels."""
    return dataclasses.replace(
        ex,
        relevance=channels_moved_first(np.asarray(ex.relevance), -3),
        input=channels_moved_first(np.asarray(ex.input), -3),
    )
