"""A figure that needs no pyplot and shows itself in notebooks; ``colours.new_figure`` makes it.

The one module here that imports matplotlib when it is imported: it derives a class from matplotlib's.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["Picture", "png"]


class Picture(Figure):
    """A matplotlib figure on Agg's canvas, in no global state unless ``colours.register_with_pyplot`` adds it."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        FigureCanvasAgg(self)

    def _ipython_display_(self) -> None:
        """Leave a figure that pyplot shows by itself to pyplot: else a notebook would show it twice."""
        if self.canvas.manager is None or matplotlib.get_backend().lower() == "agg":
            raise NotImplementedError  # IPython goes on to the PNG

    def _repr_png_(self) -> bytes:
        """Return the PNG that a notebook shows."""
        return png(self)


def png(figure: Figure, dpi: float | None = None) -> bytes:
    """Return a figure as PNG, at its own resolution or at ``dpi``."""
    memory = BytesIO()
    figure.savefig(memory, format="png", dpi="figure" if dpi is None else dpi)
    return memory.getvalue()
