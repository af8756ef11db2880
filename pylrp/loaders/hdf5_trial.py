"""A trial run over an HDF5 file, in a process of its own with a time limit.

Altered files lead the HDF5 library into loops that never end and that nothing interrupts, and sometimes end the
process. ``plain/mat_hdf5.py`` and ``keras/file.py`` call in before they open a file themselves; ``hdf5_file.py`` then
looks at where its data lie.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["require_end"]

# Arguments: the CPU seconds, the bytes up to which arrays are read, the file or "-" for standard input, sys.path.
# Links are not followed: what they lead to is refused later.
_TRIAL = """
import sys
seconds, most, path, *sys.path[:] = float(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
import io, signal
import h5py
if hasattr(signal, "setitimer"):
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)  # ends the process
seen, waiting = set(), []
with h5py.File(io.BytesIO(sys.stdin.buffer.read()) if path == "-" else path, "r") as file:
    waiting.append(file)
    while waiting:
        item = waiting.pop()
        for name in item.attrs:
            item.attrs[name]
        if isinstance(item, h5py.Group):
            for name in item:
                if isinstance(item.get(name, getlink=True), h5py.HardLink):
                    below = item[name]
                    if below.id not in seen and len(seen) < 200000:
                        seen.add(below.id)
                        waiting.append(below)
        elif isinstance(item, h5py.Dataset) and item.shape is not None and not item.is_virtual and not item.external:
            if item.size * item.dtype.itemsize <= most:
                item[()]
"""

#: CPU seconds for files of up to a megabyte, and for each further one.
_SECONDS, _SECONDS_PER_MEGABYTE = 0.5, 0.1
#: Wall time in units of that, for a machine that has more to do and where CPU time is not limited; and at least.
_PATIENCE, _LEAST = 10, 30.0
#: Arrays beyond this are not read twice.
_MOST_READ = 1 << 24


def require_end(source: Path | bytes) -> None:
    """Raise ValueError if reading a file does not end, or ends the process that reads it.

    Parameters
    ----------
    source : Path or bytes
        The file, or what is in it. What is wrong with it otherwise is left to the one who reads it.
    """
    if not Path(sys.executable or "").name.startswith(("python", "pypy")):
        return  # Python within another program: there is no interpreter to start
    data = source if isinstance(source, bytes) else None
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    seconds = _SECONDS + _SECONDS_PER_MEGABYTE * size / (1 << 20)
    place = "-" if isinstance(source, bytes) else os.fspath(source.absolute())
    arguments = [str(seconds), str(min(4 * size, _MOST_READ)), place, *filter(None, sys.path)]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRIAL, *arguments],
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=max(_LEAST, _PATIENCE * seconds),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError("reading it does not end: it is damaged or altered") from None
    except OSError:
        return  # no process may be started here
    if done.returncode < 0:
        raise ValueError("reading it does not end, or ends the process: it is damaged or altered")
