"""Ctrl-C while a file is loaded that takes long: a child gets the signal, KeyboardInterrupt comes within a second."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

WAIT = 0.4  # seconds of CPU until the signal comes
# The signal comes after some of the process's own time, however busy the machine is.
CHILD = f"""
import os, signal, sys, time
import numpy as np, pylrp, pylrp.loaders.plain.arrays
try:
    import pylrp.loaders.onnx.model
except ImportError:
    pass
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), signal.SIGINT))
begun = time.process_time()
signal.setitimer(signal.ITIMER_PROF, {WAIT})
try:
    pylrp.load(sys.argv[1])
except KeyboardInterrupt:
    print(time.process_time() - begun - {WAIT})
"""


def seconds_until_interrupted(path: Path) -> float:
    """Return the CPU time between the signal and the exception; the load as a whole takes longer than a second."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=path.parent,  # not the source folder, whose pylrp has no compiled core
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return float(done.stdout)  # nothing: it was loaded


@pytest.mark.slow
def test_a_file_of_many_arrays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.npz", "w") as file:
        for i in range(1, 20_001):
            with file.open(f"W{i}.npy", "w") as member:
                np.lib.format.write_array(member, np.ones((1, 1)))
    assert seconds_until_interrupted(tmp_path / "net.npz") < 1


@pytest.mark.slow
def test_a_file_of_many_nodes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind, n = onnx.helper, onnx.TensorProto.FLOAT, 10_000
    names = ["x", *(f"v{i}" for i in range(n - 1)), "y"]
    nodes = [helper.make_node("Add", [below, below], [above]) for below, above in pairwise(names)]
    shape = ["n", 4]
    ends = [[helper.make_tensor_value_info(name, kind, shape)] for name in "xy"]
    model = helper.make_model(helper.make_graph(nodes, "net", *ends), opset_imports=[helper.make_opsetid("", 17)])
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    assert seconds_until_interrupted(tmp_path / "net.onnx") < 1
