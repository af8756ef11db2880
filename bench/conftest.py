"""Let ``test_throughput.py`` import the modules beside it, also under ``--import-mode=importlib``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
