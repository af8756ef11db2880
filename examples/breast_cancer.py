"""Why does the network say malignant? A scikit-learn MLP on a table with named columns, explained patient by patient.

    python examples/breast_cancer.py [--output breast_cancer.png]

The data are scikit-learn's: 569 tumours, 30 measurements each. Two things to copy from here. Relevance is measured from
zero, so load the MLP alone and give it the *scaled* columns, in which zero is the average patient; load the whole
pipeline, and zero is a tumour of size 0. And with two classes there is one logit, that of `classes_[1]`, benign: what
is negative speaks for malignant.

The script checks the map against the network: with the 5 measurements that speak loudest for the predicted class set to
the average, its logit must fall further than with any 5 at random. Exit code 1 if it does not. Needs scikit-learn and
matplotlib. tests/docs/test_examples.py runs it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import pylrp
from pylrp.plot import new_figure, table

Array = NDArray[Any]
REPLACED = 5  # measurements of 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, explain, check; return the exit code."""
    parser = argparse.ArgumentParser(description="Why does the network say malignant?")
    parser.add_argument("--output", type=Path, default=Path("breast_cancer.png"))
    options = parser.parse_args(arguments)

    data = load_breast_cancer()
    X, X_test, y, y_test = train_test_split(data.data, data.target, test_size=0.3, random_state=0, stratify=data.target)
    scaler, mlp = StandardScaler(), MLPClassifier((30, 15), alpha=1.0, max_iter=1000, random_state=0)
    accuracy = make_pipeline(scaler, mlp).fit(X, y).score(X_test, y_test)
    print(f"{len(X_test)} patients it has not seen, {accuracy:.1%} right")

    net = pylrp.load(mlp)
    print(net.summary("epsilon"))
    scaled = scaler.transform(X_test)
    ex = net.explain(scaled, composite="epsilon")
    logit = ex.output[:, 0]

    # Two patients, by name: the sickest, and the one of whom the network is least sure.
    patients = int(logit.argmin()), int(np.abs(logit).argmin())
    said = [f"patient {p}: {data.target_names[int(logit[p] > 0)]}, logit {logit[p]:.1f}" for p in patients]
    for patient, verdict in zip(patients, said, strict=True):
        print(f"\n{verdict}")
        for i in np.argsort(-np.abs(ex.relevance[patient]))[:REPLACED]:
            value, of = X_test[patient, i], scaled[patient, i]
            print(f"  {ex.relevance[patient, i]:+6.2f}  {data.feature_names[i]} = {value:.4g}, {of:+.1f} sigma")
    assert isinstance(ex.ledger, pylrp.Ledger)  # one class was explained, so there is one
    print(ex.ledger.table(sample=patients[0]))

    # Is that right? Set the loudest measurements to the average; and 5 at random, ten times.
    towards = np.sign(logit)[:, None]
    fall = changed(net, scaled, np.argsort(-ex.relevance * towards, axis=1))
    rng = np.random.default_rng(0)
    chance = [changed(net, scaled, rng.permuted(np.tile(np.arange(30), (len(X_test), 1)), axis=1)) for _ in range(10)]
    print(f"\n{REPLACED} loudest measurements at the average: the logit loses {fall:.0%} of its size")
    print(f"{REPLACED} at random: {np.mean(chance):.0%} (of ten draws the most: {max(chance):.0%})")

    figure = new_figure(11, 4.2, dpi=150)
    for ax, patient, verdict in zip(figure.subplots(1, 2), patients, said, strict=True):
        table(ax, ex.relevance[patient], [f"{v:.3g}" for v in X_test[patient]], names=data.feature_names.tolist())
        ax.set_xlim(1.15 * ax.get_xlim()[0])  # room for the numbers left of the bars
        ax.set_title(verdict, fontsize=10)
    figure.text(0.02, 0.02, "blue, to the left: speaks for malignant; red, to the right: for benign", fontsize=8)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(options.output)
    print(f"picture: {options.output}")
    return 0 if accuracy > 0.9 and fall > 2 * max(chance) else 1


def changed(net: pylrp.Network, x: Array, order: Array) -> float:
    """Return the mean share of the logit that goes away when the first measurements of `order` are average, 0."""
    averaged = x.copy()
    np.put_along_axis(averaged, order[:, :REPLACED], 0, axis=1)
    before, after = net.forward(x)[:, 0], net.forward(averaged)[:, 0]
    return float(np.sum((before - after) * np.sign(before)) / np.abs(before).sum())


if __name__ == "__main__":
    raise SystemExit(main())
