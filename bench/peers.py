"""The competitors: each prepares what may be prepared once and returns a call that gives the relevance.

``COMPETITORS`` is the whole list; ``run.py`` and ``test_throughput.py`` check what a call returns, then
time it. Libraries that are not installed are reported as such. All competitors get the same arrays (torch
shares NumPy's memory) and as many threads as ``use_threads`` allows; NumPy's own loops and the Cython loops
have no threads to use.

What they compute is not always the same, and ``Competitor.computes`` says so:

- zennit and captum need their own forward pass, so theirs is in the time. zennit's hooks are registered
  once, before the clock starts; captum removes its rules after every call, so they are set in every call.
- captum has no w^2 rule: its input layer gets z+ like the others and is compared with that.
- "torch forward" is the prediction alone: what an explanation may cost.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import by_hand
import loops
import numpy as np
from by_hand import Array
from cases import Problem

Call = Callable[[], Array]


@dataclass(frozen=True)
class Competitor:
    """A way to explain a problem."""

    name: str
    prepare: Callable[[Problem, int], Call]  # the problem and the number of threads
    needs: tuple[str, ...] = ()  # modules to be installed
    computes: str = "relevance"  # or "relevance, z+ at the input" or "logits"
    takes: Callable[[Problem], bool] = lambda problem: True

    def obstacle(self, problem: Problem) -> str:
        """Why there is no row for this problem, or an empty string."""
        missing = [name for name in self.needs if not installed(name)]
        if missing:
            return f"{missing[0]} not installed"
        return "" if self.takes(problem) else "not for this case"


def installed(name: str) -> bool:
    """Whether a top level module is there."""
    return importlib.util.find_spec(name) is not None


@lru_cache
def load(name: str) -> Any:
    """Import an optional library."""
    if name.startswith("zennit") and installed("torchvision"):
        _declare_torchvision_operators()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries' own imports; ours are errors
        return importlib.import_module(name)


_library: Any = None  # torch forgets the operators with the object that defined them


def _declare_torchvision_operators() -> None:
    """Let a torchvision built for CUDA be imported beside a torch for the CPU.

    Its import, and so zennit's, asks for operators that are not there.
    """
    global _library
    torch = load("torch")
    if _library is None and not hasattr(torch.ops.torchvision, "nms"):
        _library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            _library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def use_threads(threads: int) -> None:
    """Give every pool of this process, NumPy's and torch's, as many threads."""
    if installed("threadpoolctl"):
        load("threadpoolctl").threadpool_limits(threads)
    if installed("torch"):
        load("torch").set_num_threads(threads)


def pylrp_relevance(problem: Problem, threads: int) -> Call:
    """``pylrp.relevance``: arrays in, array out, nothing prepared."""
    pylrp = load("pylrp")
    rules = None if problem.is_question else [_pylrp_rule(rule) for rule in problem.rules]
    weights, acts = list(problem.weights), list(problem.acts)
    return lambda: pylrp.relevance(weights, acts, problem.out, rules=rules, threads=threads)


def _pylrp_rule(name: str) -> Any:
    pylrp = load("pylrp")
    return {
        "w2": lambda: pylrp.WSquare(stabilizer=0),
        "z+": lambda: pylrp.ZPlus(stabilizer=0),
        "epsilon": lambda: pylrp.Epsilon(by_hand.EPSILON),
        "gamma": lambda: pylrp.Gamma(by_hand.GAMMA),
        "alpha2-beta1": lambda: pylrp.AlphaBeta(2, 1),
        "z-box": lambda: pylrp.ZBox(by_hand.LOW, by_hand.HIGH),
    }[name]()


def pylrp_explain(problem: Problem, threads: int) -> Call:
    """``pylrp.Network.explain``: the prepared network, forward pass included."""
    network, x = _pylrp_network(problem), problem.acts[0]
    if problem.is_question:
        return lambda: network.explain(x, composite="deep_taylor", threads=threads).relevance
    rules = [_pylrp_rule(rule) for rule in problem.rules]
    return lambda: network.explain(x, problem.out, rules, threads=threads).relevance


def pylrp_forward(problem: Problem, threads: int) -> Call:
    """``pylrp.Network.forward``: the prediction alone."""
    network, x = _pylrp_network(problem), problem.acts[0]
    return lambda: network.forward(x, threads=threads)


def _pylrp_network(problem: Problem) -> Any:
    kinds = load("pylrp.layers")
    layers: list[Any] = []
    for W in problem.weights:
        layers += [kinds.Dense(W), kinds.ReLU()]
    return load("pylrp").Network(layers[:-1])


def numpy_by_hand(problem: Problem, threads: int) -> Call:
    """Return ``by_hand.explain`` on arrays."""
    return lambda: by_hand.explain(np, problem.rules, problem.weights, problem.acts, problem.out)


def cython_loops(problem: Problem, threads: int) -> Call:
    """The question's loops, compiled; always one thread."""
    module = loops.load()
    below = [np.empty_like(a) for a in problem.acts]

    def run() -> Array:
        R = problem.out
        for layer in range(len(problem.weights) - 1, 0, -1):
            module.z_plus(problem.weights[layer], problem.acts[layer], R, below[layer])
            R = below[layer]
        module.w_square(problem.weights[0], R, below[0])
        return below[0]

    return run


def _tensors(problem: Problem) -> tuple[Any, list[Any], list[Any], Any]:
    torch = load("torch")
    weights, acts = map(torch.from_numpy, problem.weights), map(torch.from_numpy, problem.acts)
    return torch, list(weights), list(acts), torch.from_numpy(problem.out)


def torch_by_hand(problem: Problem, threads: int) -> Call:
    """Return ``by_hand.explain`` on tensors, without autograd."""
    torch, weights, acts, out = _tensors(problem)

    def run() -> Array:
        return np.asarray(by_hand.explain(torch, problem.rules, weights, acts, out))

    call: Call = torch.inference_mode()(run)
    return call


def torch_kept(problem: Problem, threads: int) -> Call:
    """The same with W+ and W^2 made once and kept beside W: all weights are in memory twice."""
    torch, weights, acts, out = _tensors(problem)
    square = weights[0] * weights[0]
    sums = square.sum(1)
    plus = [None, *(W.clip(min=0) for W in weights[1:])]

    def run() -> Array:
        R = out
        for layer in range(len(weights) - 1, 0, -1):
            V, a = plus[layer], acts[layer]
            R = a * ((R / (a @ V.T + by_hand.TINY)) @ V)
        return np.asarray((R / sums) @ square)

    call: Call = torch.inference_mode()(run)
    return call


def _torch_model(problem: Problem) -> tuple[Any, Any, Any]:
    """Return torch, the network as a module whose parameters are NumPy's memory, and its input."""
    torch, weights, acts, _ = _tensors(problem)
    layers: list[Any] = []
    for W in weights:
        linear = torch.nn.Linear(*reversed(W.shape), bias=False, device="meta")
        linear.weight = torch.nn.Parameter(W, requires_grad=False)
        layers += [linear, torch.nn.ReLU()]
    return torch, torch.nn.Sequential(*layers[:-1]).eval(), acts[0]


def torch_forward(problem: Problem, threads: int) -> Call:
    """The prediction alone."""
    torch, model, x = _torch_model(problem)

    def run() -> Array:
        return np.asarray(model(x))

    call: Call = torch.inference_mode()(run)
    return call


def zennit(problem: Problem, threads: int) -> Call:
    """zennit, a rule for each layer by name."""
    torch, model, x = _torch_model(problem)
    rules, x = load("zennit.rules"), x.clone().requires_grad_()
    low, high = (torch.full_like(x[:1], bound) for bound in (by_hand.LOW, by_hand.HIGH))
    make: dict[str, Callable[[], Any]] = {
        "w2": lambda: rules.WSquare(stabilizer=by_hand.TINY),
        "z+": lambda: rules.ZPlus(stabilizer=by_hand.TINY),
        "epsilon": lambda: rules.Epsilon(by_hand.EPSILON),
        "gamma": lambda: rules.Gamma(by_hand.GAMMA),
        "alpha2-beta1": lambda: rules.AlphaBeta(alpha=2, beta=1),
        "z-box": lambda: rules.ZBox(low, high),
    }
    name_map = [([str(2 * layer)], make[rule]()) for layer, rule in enumerate(problem.rules)]
    name_map += [([str(2 * layer + 1)], rules.Pass()) for layer in range(len(problem.rules) - 1)]
    load("zennit.composites").NameMapComposite(name_map).register(model)
    out = torch.from_numpy(problem.out)

    def run() -> Array:
        (relevance,) = torch.autograd.grad(model(x), x, out)
        return np.asarray(relevance)

    return run


def captum(problem: Problem, threads: int) -> Call:
    """captum, alpha1-beta0 in every layer: it has no w^2; it starts from one class, so no single rules."""
    torch, model, x = _torch_model(problem)
    x = x.clone().requires_grad_()
    attr, rules = load("captum.attr"), load("captum.attr._utils.lrp_rules")
    target = torch.from_numpy(problem.out.argmax(axis=1))

    def run() -> Array:
        for layer in model[::2]:
            layer.rule = rules.Alpha1_Beta0_Rule()
        return np.asarray(attr.LRP(model).attribute(x, target=target).detach())

    return run


def _small(problem: Problem) -> bool:
    return problem.is_question and problem.flops < 6e9  # some 2 seconds


def _question(problem: Problem) -> bool:
    return problem.is_question


COMPETITORS = (
    Competitor("pylrp", pylrp_relevance, ("pylrp",)),
    Competitor("pylrp explain", pylrp_explain, ("pylrp",)),
    Competitor("pylrp forward", pylrp_forward, ("pylrp",), computes="logits"),
    Competitor("NumPy by hand", numpy_by_hand),
    Competitor("Cython loops", cython_loops, ("Cython",), takes=_small),
    Competitor("torch by hand", torch_by_hand, ("torch",)),
    Competitor("torch, W+ kept", torch_kept, ("torch",), takes=_question),
    Competitor("torch forward", torch_forward, ("torch",), computes="logits"),
    Competitor("zennit", zennit, ("torch", "zennit")),
    Competitor("captum", captum, ("torch", "captum"), "relevance, z+ at the input", _question),
)
