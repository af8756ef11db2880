"""Pictures of relevance with matplotlib, symmetrical about zero; ``ex.plot()`` is the way in.

Every function that draws takes Axes (or a figure, where it draws several panels) and arrays, so that you can compose
your own figures; :func:`explanation`, which is ``ex.plot``, and :func:`grid` take explanations and make the figure.
Figures are made without pyplot: no display is needed, and any thread may draw. Where your program has imported pyplot,
``plt.show()`` shows what was not written to a file. matplotlib is the optional extra ``plot``.
"""

from pylrp.plot.bars import table
from pylrp.plot.channels_and_layers import channels, layers
from pylrp.plot.colours import PERCENTILE, diverging_map, new_figure, symmetric_limit
from pylrp.plot.explanations import KINDS, explanation
from pylrp.plot.grids import grid
from pylrp.plot.images import heatmap, image
from pylrp.plot.ledger_bars import ledger
from pylrp.plot.notebook import to_html
from pylrp.plot.signals import signal, time_by_feature
from pylrp.plot.summary import summary
from pylrp.plot.words import heads, patches, positions, text
from pylrp.present.pixels import to_picture

__all__ = [
    "KINDS",
    "PERCENTILE",
    "channels",
    "diverging_map",
    "explanation",
    "grid",
    "heads",
    "heatmap",
    "image",
    "layers",
    "ledger",
    "new_figure",
    "patches",
    "positions",
    "signal",
    "summary",
    "symmetric_limit",
    "table",
    "text",
    "time_by_feature",
    "to_html",
    "to_picture",
]
