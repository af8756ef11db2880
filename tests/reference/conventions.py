"""The rules as other libraries compute them, element by element, in the terms of `contributions.py`.

Written from the published descriptions and sources: captum 0.9 (`lrp_rules.py`), iNNvestigate 2.1.2
(`relevance_rule.py`), lrp_toolbox (`modules/linear.py`). A stabiliser or epsilon that is given counts; what is left at
its default becomes the library's own. The tables hold the rules a library has for dense layers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pylrp import rules

from .contributions import ORACLES, Array, Layer, Oracle, Share, bias_of, negative, positive

GIVEN = 0.375  # the tests give this where they give a stabiliser at all


def own(value: float, default: float) -> float:
    """Return the library's default unless the test gave a value."""
    return GIVEN if value == GIVEN else default


def scaled(factor: Array, layer: Layer) -> Array:
    """Contributions a * factor for weights (k, j) changed by the rule."""
    return layer.a[:, None, :] * factor[None, :, :]


# captum: one signed stabiliser of 1e-9; the input is not split by sign; the bias stays as it is.
def captum_zero(rule, layer):
    return [Share(layer.C, bias_of(rule, layer), 1e-9)]


def captum_epsilon(rule, layer):
    return [Share(layer.C, bias_of(rule, layer), own(rule.epsilon, 1e-9))]


def captum_gamma(rule, layer):
    weight = layer.W + rule.gamma * positive(layer.W)
    return [Share(scaled(weight, layer), bias_of(rule, layer), own(rule.stabilizer, 1e-9))]


def captum_alpha1_beta0(rule, layer):
    return [Share(scaled(positive(layer.W), layer), bias_of(rule, layer), own(rule.stabilizer, 1e-9))]


# iNNvestigate: 1e-7 only where a denominator is exactly 0; both denominators of alpha-beta hold the whole bias.
def innvestigate_z(rule, layer):
    return [Share(layer.C, bias_of(rule, layer), 1e-7, only_at_zero=True)]


def innvestigate_epsilon(rule, layer):
    return [Share(layer.C, bias_of(rule, layer), own(rule.epsilon, 1e-7))]


def innvestigate_z_plus(rule, layer):
    given = rule.stabilizer == GIVEN
    return [
        Share(positive(layer.C), bias_of(rule, layer), own(rule.stabilizer, 1e-7), only_at_zero=not given),
    ]


def innvestigate_alpha_beta(rule, layer):
    given, eps = rule.stabilizer == GIVEN, own(rule.stabilizer, 1e-7)
    b = bias_of(rule, layer)
    return [
        Share(positive(layer.C), b, eps, rule.alpha, only_at_zero=not given),
        Share(negative(layer.C), b, eps, -rule.beta, only_at_zero=not given),
    ]


def innvestigate_no_bias(rule, layer):
    share = ORACLES[type(rule)](rule, replace(layer, b=np.zeros_like(layer.b)))[0]
    given = rule.stabilizer == GIVEN
    return [replace(share, epsilon=own(rule.stabilizer, 1e-7), only_at_zero=not given)]


# lrp_toolbox: epsilon 1.0 by default, LRP-0 with 1e-16, the others bare; w^2 and flat without bias.
def toolbox_z(rule, layer):
    return [Share(layer.C, bias_of(rule, layer), 1e-16)]


def toolbox_epsilon(rule, layer):
    return [Share(layer.C, bias_of(rule, layer), own(rule.epsilon, 1.0))]


def toolbox_alpha_beta(rule, layer):
    return [replace(share, epsilon=own(rule.stabilizer, 0.0)) for share in ORACLES[type(rule)](rule, layer)]


def toolbox_no_bias(rule, layer):
    share = ORACLES[type(rule)](rule, replace(layer, b=np.zeros_like(layer.b)))[0]
    return [replace(share, epsilon=own(rule.stabilizer, 0.0))]


CONVENTIONS: dict[str, dict[type, Oracle]] = {
    "zennit": ORACLES,
    "captum": {
        rules.Zero: captum_zero,
        rules.Epsilon: captum_epsilon,
        rules.Gamma: captum_gamma,
        rules.ZPlus: captum_alpha1_beta0,
        rules.Pass: ORACLES[rules.Pass],
    },
    "innvestigate": {
        rules.Zero: innvestigate_z,
        rules.Epsilon: innvestigate_epsilon,
        rules.ZPlus: innvestigate_z_plus,
        rules.AlphaBeta: innvestigate_alpha_beta,
        rules.WSquare: innvestigate_no_bias,
        rules.Flat: innvestigate_no_bias,
        rules.ZBox: innvestigate_no_bias,
        rules.Pass: ORACLES[rules.Pass],
    },
    "lrp_toolbox": {
        rules.Zero: toolbox_z,
        rules.Epsilon: toolbox_epsilon,
        rules.ZPlus: toolbox_alpha_beta,
        rules.AlphaBeta: toolbox_alpha_beta,
        rules.WSquare: toolbox_no_bias,
        rules.Flat: toolbox_no_bias,
        rules.Pass: ORACLES[rules.Pass],
    },
}
