"""MATLAB files with bits flipped, cut short or leading elsewhere: refused before SciPy or HDF5 reads them."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from mat_files import cell, struct_array

import pylrp
from pylrp.loaders.plain.mat_file import read_mat
from pylrp.loaders.plain.mat_structure import require_structure

ENTRIES = {
    "W1": np.arange(12.0).reshape(3, 4),
    "z": np.ones((2, 2)) * 1j,
    "n": np.arange(6, dtype=np.int16),
    "text": "größe",
    "rows": np.array(["ab", "cd"]),
    "nothing": np.zeros((0, 3)),
    "flag": np.array([True, False]),
    "parts": cell([np.eye(2), "relu", np.zeros((0, 0))]),
    "layers": struct_array([{"W": np.eye(2), "name": "one"}, {"W": np.eye(3), "name": "two"}]),
    "sparse": scipy.sparse.csc_matrix(np.diag([1.0, 0.0, 2.0])),
    "s": {"a": {"b": np.float32([1, 2])}},
}

# Flips bits of a file in a process of its own, which a crash would end.
FLIPS = """
import sys, warnings
import numpy as np, pylrp
from pathlib import Path
from pylrp.loaders.plain.mat_file import read_mat
path, seed = Path(sys.argv[1]), int(sys.argv[2])
whole, rng = path.read_bytes(), np.random.default_rng(seed)
read = refused = 0
warnings.simplefilter("ignore")
for _ in range(400):
    data = bytearray(whole)
    for at in rng.integers(124, len(data), rng.integers(1, 4)):
        data[at] ^= 1 << rng.integers(8)
    path.with_suffix(".2.mat").write_bytes(data)
    try:
        read_mat(path.with_suffix(".2.mat"))
        read += 1
    except pylrp.BrokenFile:
        refused += 1
print(read, refused)
"""


@pytest.mark.parametrize("options", [{}, {"do_compression": True}, {"format": "4"}])
def test_good_files_pass(tmp_path, options):
    entries = {"W1": ENTRIES["W1"], "text": "abc"} if options.get("format") == "4" else ENTRIES
    scipy.io.savemat(tmp_path / "net.mat", entries, **options)
    require_structure(tmp_path / "net.mat")
    found = read_mat(tmp_path / "net.mat")
    assert set(found) == set(entries)
    np.testing.assert_array_equal(found["W1"], ENTRIES["W1"])


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_flipped_bits(tmp_path, packed):
    scipy.io.savemat(tmp_path / "net.mat", ENTRIES, do_compression=packed)
    done = subprocess.run(
        [sys.executable, "-c", FLIPS, str(tmp_path / "net.mat"), "7"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,  # not the source folder, whose pylrp has no compiled core
    )
    assert done.returncode == 0, done.stderr[-2000:]
    read, refused = map(int, done.stdout.split())
    assert read + refused == 400
    assert refused > 50
    assert packed or read > 50


@pytest.mark.parametrize("version", ["4", "5"])
def test_files_cut_short(tmp_path, version):
    path = tmp_path / "net.mat"
    scipy.io.savemat(path, {"W1": np.ones((3, 4)), "W2": np.ones((2, 3))}, format=version)
    whole = path.read_bytes()
    assert pylrp.load(path).output_size == 2
    for length in (1, 19, 60, len(whole) - 150, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(pylrp.BrokenFile) as caught:
            pylrp.load(path)
        assert caught.value.path == str(path)


def matlab73(path, fill):
    """Write HDF5 behind MATLAB's head."""
    with h5py.File(path, "w", userblock_size=512) as file:
        fill(file)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


def put(file, name="W1", data=((1.0, 2.0),), kind=b"double", **options):
    item = file.create_dataset(name, data=None if "shape" in options else np.array(data), **options)
    item.attrs["MATLAB_class"] = np.bytes_(kind) if isinstance(kind, bytes) else kind
    return item


def in_circles(file):
    group = file.create_group("a")
    group.attrs["MATLAB_class"] = np.bytes_("struct")
    group["again"] = group


def virtual(file, other):
    layout = h5py.VirtualLayout((64,), "u1")
    layout[:] = h5py.VirtualSource(other, "data", (64,))
    file.create_virtual_dataset("W1", layout)


def empty_of(file, *sizes):
    put(file, data=np.array(sizes, np.uint64)).attrs["MATLAB_empty"] = 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "fill",
    [
        lambda file, other: put(file, shape=(64, 1), dtype="u1", external=[(other, 0, 64)]),
        lambda file, other: file.__setitem__("W1", h5py.ExternalLink(other, "/data")),
        lambda file, other: file.create_group("g").__setitem__("W1", h5py.ExternalLink(other, "/data")),
        virtual,
        lambda file, _: file.__setitem__("W1", h5py.SoftLink("/no")),
        lambda file, _: in_circles(file),
        lambda file, _: put(file, kind=5),
        lambda file, _: empty_of(file, 2**15, 2**15),
        lambda file, _: put(file, data=[[65.5]], kind=b"char"),
        lambda file, _: put(file, shape=(1, 1), dtype=h5py.ref_dtype, kind=b"cell"),
        lambda file, _: put(file, shape=(2**20, 2**20), dtype="f8", chunks=(1024, 1024)),
    ],
)
def test_hdf5_that_leads_elsewhere_or_nowhere(tmp_path, fill):
    other = tmp_path / "secret.h5"
    with h5py.File(other, "w") as file:
        file["data"] = np.arange(64, dtype=np.uint8)
    path = matlab73(tmp_path / "net.mat", lambda file: fill(file, str(other)))
    with pytest.raises(pylrp.BrokenFile) as caught:
        pylrp.load(path)
    assert caught.value.path == str(path)
