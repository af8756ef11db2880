"""Relevance by iNNvestigate, in a Python of its own: it needs one before 3.12, TensorFlow before 2.15, NumPy before 2.

python innvestigate_maps.py mlp|cnn OUT.npz
"""

from __future__ import annotations

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np

#: Analyzers and their arguments.
ANALYZERS = {
    "lrp.epsilon": {},
    "lrp.z": {},
    "lrp.alpha_2_beta_1": {},
    "lrp.alpha_1_beta_0": {},
    "lrp.w_square": {},
    "lrp.flat": {},
    "lrp.sequential_preset_a": {},
    "lrp.sequential_preset_b_flat": {},
    "deep_taylor.bounded": {"low": 0.0, "high": 1.0},
}


def main(kind: str, path: str) -> None:
    import innvestigate
    import tensorflow as tf
    from tensorflow.keras import Sequential
    from tensorflow.keras import layers as L

    tf.compat.v1.disable_eager_execution()
    tf.keras.utils.set_random_seed(3)
    options = {"activation": "relu", "bias_initializer": "random_normal"}
    top = L.Dense(3, activation="softmax", bias_initializer="random_normal")
    if kind == "mlp":
        model = Sequential([L.Input((7,)), L.Dense(9, **options), L.Dense(8, **options), top])
        x = np.random.default_rng(0).random(size=(4, 7))
    else:
        first, second = L.Conv2D(5, 3, **options), L.Conv2D(4, 2, **options)
        model = Sequential([L.Input((8, 8, 2)), first, L.MaxPooling2D(2), second, L.Flatten(), top])
        x = np.random.default_rng(0).random(size=(4, 8, 8, 2))
    x = x.astype(np.float32)
    logits = innvestigate.model_wo_softmax(model)
    found = {"x": x, "output": logits.predict(x, verbose=0)}
    found |= {f"w{i}": array for i, array in enumerate(model.get_weights())}
    for name, arguments in ANALYZERS.items():
        found[name] = innvestigate.create_analyzer(name, logits, **arguments).analyze(x)
    analyzer = innvestigate.create_analyzer("lrp.z", logits, neuron_selection_mode="index")
    found["lrp.z of 1"] = analyzer.analyze(x, 1)
    np.savez(path, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
