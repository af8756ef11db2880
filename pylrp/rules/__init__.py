"""Rules: the catalogue (``catalogue.py``), composites of them, other libraries' numerics, and which node gets which.

``pylrp.rules.Gamma`` and the others of the catalogue are what users import.
"""

from pylrp.rules.catalogue import *  # noqa: F403
from pylrp.rules.catalogue import __all__ as __all__
