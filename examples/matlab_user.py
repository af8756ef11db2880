"""A MATLAB user's network: weights in a .mat file, explained here, relevance back into a .mat file for `imagesc`.

    python examples/matlab_user.py [--output relevance.mat]

In MATLAB you would have written `save('net.mat', 'W1', 'b1', 'W2', 'b2')` and `save('digits.mat', 'X')`; here SciPy
writes the same two files, from the bundled network. Then pylrp loads them. The script checks that the loaded network
predicts what the matrices predict, that LRP written out line by line gives the same map, and that the file it writes
comes back with MATLAB's shapes. Exit code 1 if not. Needs SciPy: pip install scipy h5py. tests/docs/test_examples.py
runs it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

import pylrp
from pylrp.demo import load_demo_digits, load_demo_network

Array = NDArray[Any]
EPSILON = 1e-6


def write_what_a_matlab_user_has(folder: Path) -> None:
    """Write net.mat and digits.mat: doubles, biases as columns, a sample a column."""
    W, b = load_demo_network()
    images = load_demo_digits()[0][:10] / 255.0
    columns = images.reshape(10, 784).T  # 784 x 10
    net = {"W1": W[0].astype(float), "b1": b[0].astype(float)[:, None]}
    net |= {"W2": W[1].astype(float), "b2": b[1].astype(float)[:, None]}
    scipy.io.savemat(folder / "net.mat", net)
    scipy.io.savemat(folder / "digits.mat", {"X": columns})


def epsilon_by_hand(W: list[Array], b: list[Array], x: Array) -> tuple[Array, Array]:
    """Return the logits and the relevance of one sample, as a MATLAB user would write it: one formula, twice."""
    hidden = np.maximum(W[0] @ x + b[0], 0)
    logits = W[1] @ hidden + b[1]
    R = np.where(np.arange(10) == logits.argmax(), logits, 0)
    for weight, bias, activation in ((W[1], b[1], hidden), (W[0], b[0], x)):
        z = weight @ activation + bias
        s = R / (z + EPSILON * np.where(z < 0, -1, 1))
        R = activation * (weight.T @ s)
    return logits, R


def main(arguments: Sequence[str] | None = None) -> int:
    """Load, explain, write back; return the exit code."""
    parser = argparse.ArgumentParser(description="A MATLAB user's network, explained.")
    parser.add_argument("--output", type=Path, default=Path("relevance.mat"))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_what_a_matlab_user_has(folder)

        # Read the summary: shapes, and the functions between the layers, which the file did not name.
        net = pylrp.load(folder / "net.mat")
        print(net.summary("epsilon"))

        # MATLAB has a sample a column, pylrp a sample a row.
        X = np.ascontiguousarray(scipy.io.loadmat(folder / "digits.mat")["X"].T)
        matrices = scipy.io.loadmat(folder / "net.mat")
    W, b = [matrices["W1"], matrices["W2"]], [matrices["b1"].ravel(), matrices["b2"].ravel()]

    ex = net.explain(X, composite="epsilon")
    print(ex.ledger)
    read = ex.output.argmax(1)
    by_hand = [epsilon_by_hand(W, b, x) for x in X]
    wrong_logits = np.abs(ex.output - [logits for logits, _ in by_hand]).max()
    wrong_map = np.abs(ex.relevance - [R for _, R in by_hand]).max() / np.abs(ex.relevance).max()
    print(f"largest difference to the formulas by hand: logits {wrong_logits:.0e}, relevance {wrong_map:.0e}")

    # Back to MATLAB: load relevance; imagesc(R(:, :, 1)); axis image; classes count from 1 there.
    R = np.moveaxis(ex.relevance.reshape(-1, 28, 28), 0, -1)
    scipy.io.savemat(options.output, {"R": R, "class": read[:, None] + 1.0})
    back = scipy.io.loadmat(options.output)
    print(f"written: {options.output}, R is {' x '.join(map(str, back['R'].shape))}; the first is a {read[0]}")
    return 0 if max(wrong_logits, wrong_map) < 1e-9 and np.array_equal(back["R"], R) else 1


if __name__ == "__main__":
    raise SystemExit(main())
