"""Keras's files, ``.keras`` and ``.h5``, looked through before Keras reads them.

``keras/model.py`` calls in. A Keras file may hold Python code (``Lambda``); Keras refuses to run it, but what it
refuses has changed from version to version. Here such layers are found in the configuration, and nothing of the file is
read that lies elsewhere or is larger than the network may be.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pylrp._limits import require
from pylrp.errors import BrokenFile, UnsupportedLayer
from pylrp.loaders.hdf5_file import require_own
from pylrp.loaders.hdf5_trial import require_end

__all__ = ["LEAST_KERAS", "read_keras"]

#: Older ones run code that is in an .h5 file.
LEAST_KERAS = (3, 11, 3)
_CODE = {"Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"}
_CONFIGURATION, _WEIGHTS = "config.json", ".weights.h5"
_MOST_CONFIGURATION = 64 << 20
_ZIP, _HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"


def read_keras(keras: Any, path: Path) -> Any:
    """Return the model in a file.

    Parameters
    ----------
    keras : module
    path : Path

    Raises
    ------
    BrokenFile
        If it is no file of Keras, or its weights lie elsewhere.
    UnsupportedLayer
        If it holds code.
    """
    import h5py

    place = ""
    try:
        with path.open("rb") as file:
            head = file.read(8)
        if head.startswith(_ZIP):
            with zipfile.ZipFile(path) as file:
                place = f"entry {_CONFIGURATION!r}"
                _require_no_code(_member(file, _CONFIGURATION, _MOST_CONFIGURATION))
                for info in file.infolist():
                    place = f"entry {info.filename!r}"
                    require(info.file_size, "what is in it")
                    if info.filename.endswith(_WEIGHTS):
                        data = _member(file, info.filename, begin=_HDF5)
                        require_end(data)
                        with h5py.File(io.BytesIO(data), "r") as weights:
                            require_own(h5py, weights)
        elif head == _HDF5:
            require_end(path)
            with h5py.File(path, "r") as weights:
                require_own(h5py, weights)
                place = "attribute 'model_config'"
                _require_no_code(weights.attrs.get("model_config", b"null"))
        else:
            raise ValueError("is neither a zip file nor HDF5")
        place = ""
        return keras.saving.load_model(path, compile=False)
    except (ImportError, UnsupportedLayer):
        raise
    except Exception as error:  # Keras, zip and HDF5 each have many
        raise BrokenFile(path, place, f"can't be read as a model of Keras: {_first_line(error)}") from error


def _member(file: zipfile.ZipFile, name: str, most: int | None = None, begin: bytes = b"") -> bytes:
    """Return a member that begins in this way; nothing else of it is unpacked otherwise."""
    size = file.getinfo(name).file_size
    if most is not None and size > most:
        raise ValueError(f"it has {size} bytes, more than {most}")
    require(size, "it")
    with file.open(name) as stream:
        if stream.read(len(begin)) != begin:
            raise ValueError("it is no HDF5")
        return begin + stream.read(size)


def _require_no_code(text: bytes | str) -> None:
    """Raise UnsupportedLayer if a configuration names a layer that is Python code."""
    for item in _dicts(json.loads(text)):
        kind = item.get("class_name")
        if isinstance(kind, str) and kind.rpartition(">")[2] in _CODE:
            settings = item.get("config")
            name = settings.get("name") if isinstance(settings, dict) else None
            raise UnsupportedLayer(
                str(name or kind),
                kind,
                "is code that the file holds or another program, which is not run",
                "write the layer with others of Keras's, and save the model again",
            )


def _dicts(item: Any) -> Iterator[dict[str, Any]]:
    waiting = [item]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield found
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
