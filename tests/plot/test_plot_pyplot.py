"""Pictures and pyplot: ``ex.plot(); plt.show()`` shows them, files are written without it; and other colour maps."""

import json
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgba

import pylrp
from pylrp import plot
from pylrp.layers import Dense

# Says which figures pyplot knows after each of the calls.
KNOWN = """
import json, sys, threading
import numpy as np, matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
import pylrp
from pylrp.layers import Dense
rng = np.random.default_rng(0)
net = pylrp.Network([Dense(rng.normal(size=(3, 100)))])
x = rng.random((4, 100))
ex = net.explain(x, composite="epsilon")
known = {}
def call(name, function):
    figure = function()
    numbers = plt.get_fignums()
    known[name] = len(numbers)
    if numbers:
        assert plt.gcf() is getattr(figure, "figure", figure).canvas.figure, name
        assert plt.gcf().axes and figure is not None
    plt.close("all")
def elsewhere():
    thread = threading.Thread(target=ex.plot)
    thread.start(); thread.join()
def failing():
    try:
        ex.plot(cmap="no such map")
    except ValueError:
        pass
checks = ["flipping", "insertion", "randomisation"]
found = pylrp.evaluate.evaluate(net, x, ["epsilon"], checks=checks, steps=3, repeats=1)
call("plot", ex.plot)
call("kinds", lambda: ex.plot(kind="channels", shape=(1, 10, 10)))
call("grid", lambda: pylrp.plot.grid([ex]))
call("evaluation", found.plot)
call("curves", found.curves["epsilon"].plot)
call("insertion", found.insertion["epsilon"].plot)
call("randomisation", found.randomisation["epsilon"].plot)
call("asked", lambda: ex.plot("b.png", pyplot=True))
call("path", lambda: ex.plot("a.png"))
call("path of a grid", lambda: pylrp.plot.grid([ex], "a.png"))
call("path of an evaluation", lambda: found.plot("a.png"))
call("declined", lambda: ex.plot(pyplot=False))
call("ax", lambda: ex.plot(ax=pylrp.plot.new_figure(3, 3).subplots()))
call("notebook", lambda: ex._repr_html_())
call("thread", elsewhere)
call("failing", failing)
json.dump(known, sys.stdout)
"""
SHOWN = {"plot", "kinds", "grid", "evaluation", "curves", "insertion", "randomisation", "asked"}


@pytest.mark.slow
def test_pyplot_gets_new_figures_that_are_not_written(tmp_path):
    done = subprocess.run([sys.executable, "-c", KNOWN], cwd=tmp_path, check=True, capture_output=True, text=True)
    known = json.loads(done.stdout)
    assert {name for name, count in known.items() if count} == SHOWN
    assert set(known.values()) == {0, 1}


@pytest.fixture
def ex(rng):
    return pylrp.Network([Dense(rng.normal(size=(3, 100)))]).explain(rng.random(100), composite="epsilon")


class Manager:
    """What pyplot puts onto the canvas of its figures."""


@pytest.mark.parametrize(("managed", "backend", "twice"), [(False, "qtagg", False), (True, "agg", False),
                                                           (True, "inline", True)])  # fmt: skip
def test_a_notebook_shows_a_figure_once(ex, monkeypatch, managed, backend, twice):
    figure = ex.plot(pyplot=False)
    monkeypatch.setattr(matplotlib, "get_backend", lambda: backend)
    if managed:
        figure.canvas.manager = Manager()
    if twice:  # pyplot shows it at the end of the cell: nothing to do
        assert figure._ipython_display_() is None
    else:
        with pytest.raises(NotImplementedError):  # IPython goes on to _repr_png_
            figure._ipython_display_()


def test_colour_maps(ex):
    for cmap in ("PiYG", matplotlib.colormaps["PiYG"]):
        heat = ex.plot(shape=(10, 10), cmap=cmap, pyplot=False).axes[0].images[0]
        assert heat.get_cmap().name == "PiYG"
        low, high = heat.get_clim()
        assert low == -high
        above, below = (to_rgba(matplotlib.colormaps["PiYG"](share)) for share in (0.875, 0.125))
        for drawn in (ex.plot(kind="table", cmap=cmap, pyplot=False), plot.grid([ex], cmap=cmap, pyplot=False)):
            bars = drawn.axes[-1].patches
            assert {bar.get_facecolor() for bar in bars[:-1]} == {above, below}
            for bar in bars[:-1]:
                assert bar.get_facecolor() == (above if bar.get_width() >= 0 else below)
    fill = ex.plot(kind="signal", shape=(4, 25), cmap="PiYG", pyplot=False).axes[0].images
    assert {image.get_cmap().name for image in fill} == {"PiYG"}
    curve = ex.plot(kind="signal", shape=(1, 100), overlay="none", cmap="PiYG", pyplot=False).axes[0].patches
    assert [patch.get_facecolor() for patch in curve] == [above, below]
    grid = plot.grid([ex], shape=(10, 10), cmap="PiYG", pyplot=False)
    assert grid.axes[1].images[0].get_cmap().name == "PiYG"
    maps = ex.plot(kind="channels", shape=(4, 5, 5), cmap="PiYG", pyplot=False)
    assert {ax.images[0].get_cmap().name for ax in maps.axes} == {"PiYG"}
    layers = plot.layers(plot.new_figure(3, 3), {"a": np.eye(9), "b": [1.0, -1.0]}, cmap="PiYG")
    assert layers["a"].get_cmap().name == "PiYG"
    assert [patch.get_facecolor() for patch in layers["b"]] == [above, below]


def test_the_ledger_has_colours_of_its_own(ex):
    with pytest.raises(ValueError, match="cmap"):
        ex.plot(kind="ledger", cmap="PiYG")
