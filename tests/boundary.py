"""What the tests of bad and odd input share: a call with some parts replaced, and patterns for messages."""

import re

import numpy as np

import pylrp


def says(*parts: str) -> str:
    """Pattern for a message that holds all parts, in any order."""
    return "(?is)" + "".join(f"(?=.*{re.escape(part)})" for part in parts)


def at(*index: int) -> str:
    """Pattern for an index, in round or square brackets."""
    return r"(?=.*[\[(]" + ", ".join(map(str, index)) + r",?[\])])"


def explain(net, rules="epsilon", **changes):
    """Call relevance on a network with some of its parts replaced: `W0=...`, `acts1=...`, `biases0=...`, `out=...`."""
    parts = {"W": list(net.W), "acts": list(net.acts), "biases": list(net.biases), "out": net.out}
    options = {key: changes.pop(key) for key in ("threads", "convention", "ledger", "return_layers") if key in changes}
    for key, value in changes.items():
        if key[-1].isdigit():
            parts[key[:-1]][int(key[-1])] = value
        else:
            parts[key] = value
    return pylrp.relevance(parts["W"], parts["acts"], parts["out"], rules=rules, biases=parts["biases"], **options)


def zeros(*shape):
    """Zeros of a shape, float64."""
    return np.zeros(shape)
