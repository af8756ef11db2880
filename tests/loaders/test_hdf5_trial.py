"""The trial run over HDF5 files: an altered file in which the HDF5 library goes round for ever, and good ones."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import pylrp
from pylrp.loaders import hdf5_trial
from pylrp.loaders.hdf5_trial import require_end

MATLAB = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"


def write_good(path: Path) -> Path:
    """Write a file as MATLAB 7.3 does, with a text of variable length: those lie in a heap of their own."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, weight in (("W1", np.ones((3, 4))), ("W2", np.ones((4, 2)))):
            file.create_dataset(name, data=weight).attrs["MATLAB_class"] = np.bytes_("double")
        file["W1"].attrs["comment"] = "x" * 300
    with path.open("r+b") as stream:
        stream.write(MATLAB)
    return path


def write_endless(path: Path) -> Path:
    """Alter one number: an object of the heap says that the next one lies where it lies itself."""
    data = bytearray(write_good(path).read_bytes())
    heap = data.index(b"GCOL")
    struct.pack_into("<Q", data, heap + 24, 2**64 - 16)
    path.write_bytes(data)
    return path


@pytest.mark.slow
def test_reading_that_does_not_end(tmp_path: Path) -> None:
    path = write_endless(tmp_path / "net.mat")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(pylrp.BrokenFile, match="does not end") as caught:
        pylrp.load(path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert caught.value.path == str(path)
    assert after.ru_utime - before.ru_utime < 3  # half a second beyond the imports; machines differ
    with pytest.raises(ValueError, match="does not end"):
        require_end(path.read_bytes()[512:])


@pytest.mark.slow
def test_good_files(tmp_path: Path) -> None:
    path = write_good(tmp_path / "net.mat")
    require_end(path)
    require_end(path.read_bytes())
    assert [node.layer.kind for node in pylrp.load(path).graph.nodes][::2] == ["dense", "dense"]
    (tmp_path / "other.h5").write_bytes(b"nothing")
    require_end(tmp_path / "other.h5")  # the reader says what is wrong


def test_a_process_that_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_trial, "_TRIAL", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(ValueError, match="ends the process"):
        require_end(write_good(tmp_path / "net.mat"))


def test_wall_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_trial, "_TRIAL", "import time; time.sleep(60)")
    monkeypatch.setattr(hdf5_trial, "_LEAST", 0.1)
    monkeypatch.setattr(hdf5_trial, "_PATIENCE", 0.1)
    with pytest.raises(ValueError, match="does not end"):
        require_end(write_good(tmp_path / "net.mat"))


def test_python_within_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*arguments: object, **options: object) -> None:
        raise AssertionError("no process may be started")

    monkeypatch.setattr(subprocess, "run", started)
    monkeypatch.setattr(sys, "executable", "/usr/local/bin/matlab")
    require_end(write_good(tmp_path / "net.mat"))
