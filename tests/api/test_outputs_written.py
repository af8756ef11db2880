"""Files that are written: whole or not at all, beside other processes, on full disks; names of any kind."""

import errno
import os
import sys
import threading

import numpy as np
import pytest

import pylrp
from pylrp import layers as L
from pylrp._files import atomically
from pylrp.cli import main

ODD = os.fsdecode(b"in\xff\x1b[2J.npy")  # no UTF-8, and it clears a terminal


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pylrp.Network([L.Dense(np.ones((3, 4), np.float32))]).save("net.pylrp.npz")
    np.save("x.npy", np.arange(4, dtype=np.float32))
    return tmp_path


def test_two_writers_of_one_file(tmp_path):
    both = threading.Barrier(2)

    def write(text):
        def fill(part):
            part.write_text(text)
            both.wait(10)

        atomically(tmp_path / "a.txt", fill)

    threads = [threading.Thread(target=write, args=(letter * 1000,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a.txt").read_text() in ("a" * 1000, "b" * 1000)
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("named", [False, True])
def test_errors_name_the_file_that_the_user_knows(tmp_path, number, named):
    def fill(part):
        part.write_text("half")
        raise OSError(number, os.strerror(number), str(part) if named else None)

    with pytest.raises(OSError, match=r"a\.png") as caught:
        atomically(tmp_path / "a.png", fill)
    assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / "a.png"))
    assert os.listdir(tmp_path) == []


def test_what_is_there_stays_when_writing_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt):
        atomically(path, _interrupted)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


def _interrupted(part):
    part.write_text("half")
    raise KeyboardInterrupt


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
@pytest.mark.parametrize("output", ["r.npz", "r.html"])
def test_a_full_disk(folder, output, monkeypatch, capsys):
    def full(part, *args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pylrp._files.os.replace", full)
    assert main(["explain", "net.pylrp.npz", "x.npy", "-o", output]) == 1
    said = capsys.readouterr().err
    assert output in said
    assert ".part" not in said
    assert sorted(os.listdir(folder)) == ["net.pylrp.npz", "x.npy"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_text(folder, capsys):
    os.rename("x.npy", ODD)
    (folder / "labels.txt").write_text("one\n\x1b]0;two\x07\nthree\n")
    arguments = ["--labels", "labels.txt", "-o", "r.html", "-o", "r.npz", "-o", "pictures/"]
    assert main(["explain", "net.pylrp.npz", ODD, *arguments]) == 0
    said = capsys.readouterr()
    for text in (said.out, said.err, (folder / "r.html").read_text(encoding="utf-8")):
        assert "\x1b" not in text
        assert "\x07" not in text
    assert r"in\xff\x1b[2J.npy" in said.out
    with np.load(folder / "r.npz") as found:
        assert found["names"].tolist() == [r"in\xff\x1b[2J.npy"]
    assert len(os.listdir(folder / "pictures")) == 1


def test_names_in_a_report_made_in_python(folder):
    net = pylrp.load("net.pylrp.npz")
    report = pylrp.Report(net, ["a\x1b", "b\udcff", "c"], "title\x9b\udcff")
    report.add(np.ones(4, np.float32), name="x\x1b\udcff", feature_names=["1\x1b", "2\udcff", "3", "4"])
    report.write("r.html")
    text = (folder / "r.html").read_text(encoding="utf-8")
    assert not {"\x1b", "\x9b", "\udcff"} & set(text)


@pytest.mark.parametrize("layers", ["", " ", ","])
def test_no_layers(folder, layers, capsys):
    assert main(["explain", "net.pylrp.npz", "x.npy", "--layers", layers, "-o", "r.npz"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_pipe_as_input(folder, capsys):
    os.mkfifo("pipe.npy")
    assert main(["explain", "net.pylrp.npz", "pipe.npy", "-o", "r.npz"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_line_of_pixels():
    from PIL import Image

    from pylrp.inputs import Wanted, read_inputs

    net = pylrp.Network([L.Conv(np.ones((2, 3, 8, 8), np.float32), stride=8), L.Flatten()], (3, 64, 64))
    column = np.linspace(0, 255, 20_000).astype(np.uint8)[:, None]
    for name, array in (("tall.png", column), ("wide.png", column.T)):
        Image.fromarray(array).save(name)
        x = read_inputs([name], Wanted.of(net))[0].load().x["input"]
        os.remove(name)
        assert x.shape == (3, 64, 64)
        # Its middle: 1 of 20,000 pixels becomes 64.
        assert np.abs(x - 0.5).max() < 0.01
