"""Loads and explains altered files, in a process of its own that may crash; ``__main__.py`` reads its lines.

``child.py FOLDER SEED FIRST STEP LAST``: before each file ``at I``, after it ``done I WHAT CPU-SECONDS TEXT``.
"""

from __future__ import annotations

import linecache
import os
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from mutations import mutated

MEMORY = 3 << 30  # beyond what the libraries take
OFTEN = {
    "onnx": 8,
    "mat": 6,
    "pylrp.npz": 6,
    "npz": 4,
    "keras": 3,
    "h5": 2,
}  # how often a kind of file is drawn; others once
MOST = 128 << 20  # max_bytes: what a network takes bounds the time, too


def main(folder: Path, seed: int, first: int, step: int, last: int) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import pylrp

    warm_up(pylrp, folder)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    warnings.simplefilter("ignore")
    kinds: dict[str, list[Path]] = {}
    for path in sorted((folder / "seeds").iterdir()):
        kinds.setdefault(path.name.partition(".")[2], []).append(path)
    often = [kind for kind in sorted(kinds) for _ in range(OFTEN.get(kind, 1))]
    for i in range(first, last, step):
        print("at", i, flush=True)
        rng = np.random.default_rng([seed, i])
        of_kind = kinds[often[int(rng.integers(len(often)))]]
        source = of_kind[int(rng.integers(len(of_kind)))]
        path = folder / f"{first % step}" / f"{i}{''.join(source.suffixes)}"
        path.write_bytes(mutated(source.name, source.read_bytes(), rng))
        begin = time.process_time()
        what, text = outcome(pylrp, path)
        spent = time.process_time() - begin
        if (folder / "unpickled").exists():
            what, text = "foreign", "a pickle has been read"
            (folder / "unpickled").unlink()
        print("done", i, what, f"{spent:.2f}", source.name, repr(text[:300]), flush=True)
        if what != "foreign" and spent < 1:
            path.unlink()


def warm_up(pylrp: Any, folder: Path) -> None:
    """Explain every good file, so that imports take no altered file's time."""
    for path in sorted((folder / "seeds").iterdir()):
        what, text = outcome(pylrp, path)
        if what != ("refused" if path.name.startswith("refused") else "explained"):
            raise SystemExit(f"{path} is no good file: {what}: {text}")


def outcome(pylrp: Any, path: Path) -> tuple[str, str]:
    """Return explained, refused or foreign, and what was said."""
    try:
        net = pylrp.load(path, max_bytes=MOST)
        zeros = {name: np.zeros((1, *shape), net.dtype) for name, shape in net.graph.inputs.items()}
        for name in net.graph.channels_last & zeros.keys():  # as the user has them
            zeros[name] = np.moveaxis(zeros[name], 1, -1)
        ex = net.explain(zeros if len(zeros) > 1 else next(iter(zeros.values())))
        return "explained", str(type(ex))
    except (ValueError, TypeError, NotImplementedError) as error:
        return ("refused" if is_own(pylrp, error) else "foreign"), said(error)
    except BaseException as error:
        return "foreign", said(error)


def is_own(pylrp: Any, error: BaseException) -> bool:
    """Tell whether pylrp raised it, not a library or a statement that went wrong by itself."""
    if isinstance(error, pylrp.BrokenFile | pylrp.UnsupportedLayer | pylrp.NotFinite):
        return True
    last = traceback.extract_tb(error.__traceback__)[-1]
    inside = str(Path(pylrp.__file__).parent) in last.filename
    line = linecache.getline(last.filename, last.lineno or 0).strip()
    return inside and line.startswith("raise") and not isinstance(error, UnicodeError)


def said(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {error}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
