"""The command line from another folder: what it prints, writes and returns; a few in a process of their own."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

import pylrp
from pylrp.cli import main


def process(folder, *arguments):
    """Run `pylrp ARGUMENTS` in a folder, as a user does."""
    command = [sys.executable, "-m", "pylrp", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run `pylrp ARGUMENTS` in an empty folder, in this process."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, out, err)

    return run


def assert_one_line_error(result, status, *words):
    assert result.returncode == status
    assert not result.stdout
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("pylrp")
    assert "error: " in last
    for word in words:
        assert word in last
    if status == 1:  # the failure of a command is one line; misuse is shown with the usage
        assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_demo_writes_a_picture_here_and_prints_the_table(run, tmp_path):
    result = run("demo")
    assert (result.returncode, result.stderr) == (0, "")
    assert [p.name for p in tmp_path.iterdir()] == ["pylrp-demo.png"]
    assert (tmp_path / "pylrp-demo.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    lines = result.stdout.splitlines()
    assert len(lines) <= 10
    assert sum(line.startswith("z-box ") for line in lines) == 1
    assert lines[-1].endswith(str(tmp_path / "pylrp-demo.png"))
    lines = run("demo", "--each").stdout.splitlines()
    assert sum(line.startswith("predicted ") for line in lines) == 10
    assert sum(line.startswith("z-box ") for line in lines) == 10


@pytest.mark.slow
@pytest.mark.parametrize(("name", "start"), [("a.pdf", b"%PDF"), ("b.svg", b"<?xml"), ("c d.PNG", b"\x89PNG")])
def test_demo_writes_where_and_what_it_is_told(run, tmp_path, name, start):
    result = run("demo", "--digits", "1", "-o", name)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / name).read_bytes().startswith(start)
    assert result.stdout.startswith("1 digit, 1 read right")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (
            ["demo", "--digits", "1", "-o", "no/such/folder/x.png"],
            1,
            ["no/such/folder/x.png", "No such file or directory"],
        ),
        (["demo", "--digits", "0"], 1, ["1 to 100, not 0"]),
        (["demo", "--digits", "101"], 1, ["1 to 100, not 101"]),
        (["demo", "--digits", "ten"], 2, ["--digits", "'ten'"]),
        (["demo", "-o", "x.gif"], 2, ["'x.gif' must end in .png, .pdf or .svg"]),
        (["demo", "-o", "x"], 2, ["'x' must end in"]),
        (["demo", "--no-such-option"], 2, ["--no-such-option"]),
        (["dmeo"], 2, ["dmeo"]),
    ],
)
def test_mistakes_get_one_line_and_leave_no_file(run, tmp_path, arguments, status, words):
    assert_one_line_error(run(*arguments), status, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_pictures_place_is_an_error(run, tmp_path):
    (tmp_path / "taken.png").mkdir()
    assert_one_line_error(run("demo", "--digits", "1", "-o", "taken.png"), 1, "taken.png")


@pytest.mark.slow
def test_a_misuse_ends_the_process_with_its_status(tmp_path):
    assert_one_line_error(process(tmp_path, "dmeo"), 2, "dmeo")


@pytest.mark.slow
def test_without_matplotlib_demo_says_how_to_get_it_and_info_works(tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None; from pylrp.cli import main; status = main(['demo']); "
        "print(main(['info'])); sys.exit(status)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    info, status = result.stdout.rsplit("\n", 2)[:2]
    assert info.startswith("pylrp ")
    assert status == "0"
    result.stdout = ""
    assert_one_line_error(result, 1, "pip install matplotlib")


def test_info_prints_every_entry(run):
    result = run("info")
    assert (result.returncode, result.stderr) == (0, "")
    shown = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    entries = pylrp.info()
    assert shown.keys() == entries.keys()
    assert shown["pylrp"] == entries["pylrp"]
    assert shown["isa_built"] == ", ".join(entries["isa_built"])


@pytest.mark.slow
def test_an_instruction_set_that_is_not_there_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PYLRP_ISA", "nonesuch")
    assert_one_line_error(process(tmp_path, "info"), 1, "PYLRP_ISA=nonesuch")


def test_version(run):
    result = run("--version")
    assert (result.returncode, result.stdout) == (0, f"pylrp {pylrp.__version__}\n")


def test_no_command_gets_the_help(run):
    nothing, top = run(), run("--help")
    assert (top.returncode, top.stderr) == (0, "")
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert nothing.stderr == top.stdout


@pytest.mark.parametrize("command", ["demo", "info", "explain", "evaluate", "compare"])
def test_help_teaches(capsys, command):
    for arguments in (["--help"], [command, "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        text = capsys.readouterr().out
        assert f"  {command} " in text or len(text.split()) > 60
        assert max(map(len, text.splitlines())) <= 120
    assert f"examples:\n  pylrp {command}" in text


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error_message(tmp_path):
    command = [sys.executable, "-m", "pylrp", "info"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (1, b"")


def test_the_installed_command_is_this_main():
    (entry,) = entry_points(group="console_scripts", name="pylrp")
    assert entry.load() is main
