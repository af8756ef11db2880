"""Read what people have, images, arrays and tables, as inputs of a network; ``pylrp.cli`` is the first reader.

``files.py`` finds the files, ``images.py``, ``arrays.py`` and ``tables.py`` read one kind each, ``base.py`` holds what
they share. pillow is the optional extra ``plot`` and is imported when the first image is read.
"""

from pylrp.inputs.base import Entry, Item, Wanted
from pylrp.inputs.files import expand, read_inputs
from pylrp.inputs.images import ImagePlan, Preparation
from pylrp.inputs.tables import TableOptions

__all__ = ["Entry", "ImagePlan", "Item", "Preparation", "TableOptions", "Wanted", "expand", "read_inputs"]
