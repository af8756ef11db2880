"""What a terminal shows and what Ctrl-C leaves: a bar on a pseudo-terminal, none elsewhere; finished files stay."""

import os
import re
import subprocess

import numpy as np
import pytest
from cli_world import command, write_world

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")
pty = pytest.importorskip("pty")
pytest.importorskip("rich")

MANY = 300


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    write_world(folder, MANY)
    return folder


# The process interrupts itself when so many pictures are finished: files get their names by os.replace.
CTRL_C = """
import os, signal
def counted(part, path, *, move=os.replace, pictures=[]):
    move(part, path)
    if str(path).endswith(".png"):
        pictures.append(path)
        if len(pictures) == {finished}:
            os.kill(os.getpid(), signal.SIGINT)
os.replace = counted
"""


def interrupted(world, out, *options, stderr, finished=3, start=""):
    """Explain the images until Ctrl-C comes, and return the process."""
    python, flag, code, *rest = command("explain", "photo.npz", "images", "-o", out, *options)
    code = CTRL_C.format(finished=finished) + start + code
    return subprocess.Popen([python, flag, code, *rest], cwd=world, stdout=subprocess.PIPE, stderr=stderr, text=True)


def on_a_terminal(world, out, *options, **more):
    """Return what a terminal has got when Ctrl-C has ended the work."""
    ours, theirs = pty.openpty()
    process = interrupted(world, out, *options, stderr=theirs, **more)
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's way of saying that nobody writes any more
            break
        if not part:
            break
        seen += part
    os.close(ours)
    process.communicate(timeout=30)
    assert process.returncode == 130
    return seen.decode()


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(world):
    process = interrupted(world, "out", "-o", "out.npz", "-o", "out.html", stderr=subprocess.PIPE)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.count("\n") == 1  # no bar here, and no traceback
    said = re.fullmatch(
        rf"pylrp: interrupted: (\d+) of {MANY} inputs are explained; kept: (\d+) pictures in out/, out.npz, out.html\n",
        stderr,
    )
    count = int(said[1])
    assert 3 <= count < MANY
    with np.load(world / "out.npz") as found:
        assert len(found["names"]) == len(found["relevance"]) == count
    pictures = list((world / "out").iterdir())
    assert int(said[2]) == len(pictures) == count
    for path in pictures:
        assert path.name.endswith("-relevance.png")
        with Image.open(path) as image:
            image.load()
    assert "why?" in (world / "out.html").read_text(encoding="utf-8")
    assert stdout.count("images/") == count


@pytest.mark.slow
def test_a_bar_on_a_terminal(world):
    seen = on_a_terminal(world, "bar", finished=6)
    assert "explaining" in seen
    assert f"/{MANY}" in seen
    assert re.search(r"\d/s", seen)
    assert re.search(r"\d:\d\d:\d\d", seen)
    assert "left" in seen


@pytest.mark.slow
def test_no_bar_when_quiet_or_without_rich(world):
    seen = on_a_terminal(world, "quiet", "--quiet")
    assert "explaining" not in seen
    assert seen.startswith("pylrp: interrupted")
    seen = on_a_terminal(world, "poor", start="import sys; sys.modules['rich'] = None; ")
    assert "explaining" not in seen
    assert seen.startswith("pylrp: interrupted: ")


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_work_quietly(world):
    process = subprocess.Popen(
        command("explain", "photo.npz", "images/1*.png", "-o", "left"),
        cwd=world, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        errors = process.stderr.read()
    assert (process.wait(30), errors) == (1, "")
