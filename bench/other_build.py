"""Another build's pylrp in a process of its own, so that both can take turns: the version before a change.

    python bench/other_build.py MODEL.onnx INPUT.npy COMPOSITE THREADS    explains once for each line of standard input

``figures.py --before`` starts it with another ``pylrp`` first on the path, and calls it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np


class OtherBuild:
    """A call that another build's process carries out: ``call()`` returns when it is done."""

    def __init__(self, folder: Path, model: Path, x: np.ndarray[Any, Any], composite: str, threads: int) -> None:
        inputs = model.with_suffix(".npy")
        np.save(inputs, x)
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(model), str(inputs), composite, str(threads)],
            env={**os.environ, "PYTHONPATH": str(folder.resolve())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        where = self._answer()
        if not Path(where).is_relative_to(folder.resolve()):
            raise SystemExit(f"the other process imports pylrp from {where}, not from {folder}")

    def __enter__(self) -> OtherBuild:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def __call__(self) -> str:
        """Have the other build explain once."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise SystemExit("the other build's process has ended, see its message above")
        return answer


def serve(model: str, inputs: str, composite: str, threads: int) -> None:
    """Explain for each line that is read; the first answer says whose pylrp it is."""
    import pylrp

    net, x = pylrp.load(model), np.load(inputs)
    print(Path(pylrp.__file__).resolve(), flush=True)
    for _ in sys.stdin:
        net.explain(x, composite=composite, threads=threads)
        print("explained", flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
