"""Read images, arrays and tables from files, as inputs of a network; ``pylrp.cli`` reads with it.

``files.py`` finds the files, ``images.py``, ``arrays.py`` and ``tables.py`` read one kind each, ``base.py`` holds what
they share; ``errors.py`` has errors that name parameters. pillow is the optional extra ``plot`` and is imported when
the first image is read.
"""

from pylrp.inputs.base import Entry, Item, Wanted
from pylrp.inputs.errors import EmptyFolder, Option, OptionError
from pylrp.inputs.files import expand, read_inputs
from pylrp.inputs.images import ImagePlan, Preparation
from pylrp.inputs.tables import TableOptions

__all__ = [
    "EmptyFolder",
    "Entry",
    "ImagePlan",
    "Item",
    "Option",
    "OptionError",
    "Preparation",
    "TableOptions",
    "Wanted",
    "expand",
    "read_inputs",
]
