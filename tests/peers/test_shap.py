"""ex.to_shap() in shap itself: its plots draw it, what they show is what was explained."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import pylrp
from pylrp.layers import Dense, ReLU

pandas = pytest.importorskip("pandas")
matplotlib = pytest.importorskip("matplotlib")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of matplotlib, about shap
    shap = pytest.importorskip("shap", reason="pip install shap")

pytestmark = pytest.mark.filterwarnings("ignore")  # what shap asks of NumPy, matplotlib, numba


@pytest.fixture
def explained():
    matplotlib.use("Agg")
    rng = np.random.default_rng(0)
    net = pylrp.Network([Dense(rng.normal(size=(8, 5))), ReLU(), Dense(rng.normal(size=(3, 8)), rng.normal(size=3))])
    return net.explain(pandas.DataFrame(rng.normal(size=(60, 5)), columns=list("abcde")))


def test_plots(explained):
    from matplotlib import pyplot

    found = explained.to_shap()
    assert isinstance(found, shap.Explanation)
    logit = np.take_along_axis(explained.output, explained.target[:, None], 1)[:, 0]
    np.testing.assert_allclose(found.values.sum(1) + found.base_values, logit, atol=1e-9)
    for draw in (
        lambda: shap.plots.beeswarm(found, show=False),
        lambda: shap.plots.bar(found, show=False),
        lambda: shap.plots.waterfall(found[3], show=False),
        lambda: shap.plots.scatter(found[:, "c"], show=False),
    ):
        draw()
        assert pyplot.gcf().axes
        pyplot.close("all")
    assert list(found[:, "c"].values) == list(explained.relevance[:, 2])
