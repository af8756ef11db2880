"""pylrp.h through ctypes, for the tests of the C interface. The library comes from `make core` (build/core)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from ctypes import POINTER, Structure, byref, c_char_p, c_double, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
BUILD = ROOT / os.environ.get("PYLRP_CORE_BUILD", "build/core")
LIBRARY = BUILD / "libpylrp.so"
REQUIRED = os.environ.get("PYLRP_REQUIRE_BUILD") == "1"
STATUS = ("ok", "invalid", "not finite", "unsupported", "no memory", "interrupted", "internal")

PARTS = ("input", "positive", "negative", "one", "low", "high")
MASKS = ("all", "positive", "negative")
GUARDS = ("signed", "where_zero")
STOP = ctypes.CFUNCTYPE(c_int, c_void_p)


class Term(Structure):
    _fields_ = [("part", c_int), ("map", c_int), ("positive", c_double), ("negative", c_double), ("sign", c_double)]


class Group(Structure):
    _fields_ = [
        ("terms", POINTER(Term)),
        ("term_count", c_size_t),
        ("bias", c_int),
        ("bias_positive", c_double),
        ("bias_negative", c_double),
        ("coefficient", c_double),
        ("mask", c_int),
        ("guard", c_int),
        ("stabilizer", c_double),
    ]


class Parameter(Structure):
    _fields_ = [("name", c_char_p), ("value", c_double)]


class Call(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("batch", c_int64),
        ("acts", POINTER(c_void_p)),
        ("out", c_void_p),
        ("relevance", POINTER(c_void_p)),
        ("ledger", c_void_p),
        ("threads", c_int),
        ("stop", STOP),
        ("stop_data", c_void_p),
    ]


class Failed(Exception):
    """A status other than 0, and the text of pylrp_last_error()."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = STATUS[status]


def load() -> ctypes.CDLL:
    core = ctypes.CDLL(str(LIBRARY))
    for name in ("last_error", "instruction_set", "rule_name", "composite_name", "convention_name"):
        getattr(core, f"pylrp_{name}").restype = c_char_p
    for name in ("rule_name", "composite_name", "convention_name"):
        getattr(core, f"pylrp_{name}").argtypes = [c_size_t]
    core.pylrp_network_depth.restype = c_int64
    core.pylrp_network_depth.argtypes = [c_void_p]
    core.pylrp_rule_groups.restype = POINTER(Group)
    core.pylrp_rule_groups.argtypes = [c_void_p, POINTER(c_size_t)]
    core.pylrp_rule_named.argtypes = [c_char_p, c_char_p, POINTER(Parameter), c_size_t, POINTER(c_void_p)]
    core.pylrp_rule_from_groups.argtypes = [POINTER(Group), c_size_t, POINTER(c_void_p)]
    core.pylrp_network_new.argtypes = [c_int, POINTER(c_void_p)]
    core.pylrp_network_add_dense.argtypes = [c_void_p, c_int64, c_int64, c_void_p, c_int, c_void_p]
    core.pylrp_network_set_rule.argtypes = [c_void_p, c_int64, c_void_p, c_void_p, c_void_p]
    core.pylrp_network_set_composite.argtypes = [c_void_p, c_char_p, c_char_p, c_void_p, c_void_p]
    core.pylrp_network_check_later.argtypes = [c_void_p]
    core.pylrp_relevance.argtypes = [c_void_p, POINTER(Call)]
    for name in ("rule_free", "network_free"):
        getattr(core, f"pylrp_{name}").argtypes = [c_void_p]
        getattr(core, f"pylrp_{name}").restype = None
    return core


def address(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data


class Core:
    """The library with failures as exceptions. Handles are freed by close()."""

    def __init__(self) -> None:
        self.lib = load()
        self.rules: list[c_void_p] = []
        self.networks: list[c_void_p] = []

    def must(self, status: int) -> None:
        if status:
            raise Failed(status, self.lib.pylrp_last_error().decode())

    def names(self, what: str) -> list[str]:
        get = getattr(self.lib, f"pylrp_{what}_name")
        found: list[str] = []
        while (name := get(len(found))) is not None:
            found.append(name.decode())
        return found

    def rule(self, name: str, convention: str | None = None, parameters: Mapping[str, float] | None = None) -> c_void_p:
        given = [Parameter(n.encode(), float(v)) for n, v in (parameters or {}).items()]
        handle = c_void_p()
        array = (Parameter * len(given))(*given)
        self.must(
            self.lib.pylrp_rule_named(
                name.encode(), convention.encode() if convention else None, array, len(given), byref(handle)
            )
        )
        self.rules.append(handle)
        return handle

    def groups(self, rule: c_void_p) -> list[tuple[Any, ...]]:
        """Return the groups as Python writes them: (terms, bias, coefficient, mask, guard, stabilizer)."""
        count = c_size_t()
        found = self.lib.pylrp_rule_groups(rule, byref(count))
        return [as_python(found[g]) for g in range(count.value)]

    def network(
        self,
        weights: Sequence[np.ndarray],
        biases: Sequence[np.ndarray | None] | None = None,
        by_columns: bool = False,
    ) -> c_void_p:
        handle = c_void_p()
        self.must(self.lib.pylrp_network_new(int(weights[0].dtype == np.float64), byref(handle)))
        self.networks.append(handle)
        for w, b in zip(weights, biases or [None] * len(weights), strict=True):
            assert w.flags.f_contiguous if by_columns else w.flags.c_contiguous
            self.must(self.lib.pylrp_network_add_dense(handle, *w.shape, w.ctypes.data, int(by_columns), address(b)))
        return handle

    def network_without_layers(self) -> c_void_p:
        handle = c_void_p()
        self.must(self.lib.pylrp_network_new(1, byref(handle)))
        self.networks.append(handle)
        return handle

    def set_rule(self, network: c_void_p, layer: int, rule: c_void_p, low: Any = None, high: Any = None) -> None:
        self.must(self.lib.pylrp_network_set_rule(network, layer, rule, address(low), address(high)))

    def relevance(
        self,
        network: c_void_p,
        acts: Sequence[np.ndarray | None],
        out: np.ndarray,
        widths: Sequence[int],
        threads: int = 0,
        stop: Any = None,
        only_input: bool = False,
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the relevance of every layer's input and the ledger (depth, 9, batch)."""
        batch, depth = len(out), len(widths)
        results = [np.full((batch, n), np.nan, out.dtype) for n in widths]
        ledger = np.full((depth, 9, batch), np.nan)
        given = (c_void_p * depth)(*map(address, acts))
        places = (c_void_p * depth)(*(address(r) if l == 0 or not only_input else None for l, r in enumerate(results)))
        callback = STOP(stop) if stop else STOP()
        call = Call(ctypes.sizeof(Call), batch, given, address(out), places, address(ledger), threads, callback, None)
        self.must(self.lib.pylrp_relevance(network, byref(call)))
        return results, ledger

    def close(self) -> None:
        for rule in self.rules:
            self.lib.pylrp_rule_free(rule)
        for network in self.networks:
            self.lib.pylrp_network_free(network)


def as_python(group: Group) -> tuple[Any, ...]:
    maps = {1: "square", 2: "one"}
    terms = [
        (PARTS[t.part], maps.get(t.map, (t.positive, t.negative)), t.sign)
        for t in (group.terms[i] for i in range(group.term_count))
    ]
    bias = {1: "square", 3: None}.get(group.bias, (group.bias_positive, group.bias_negative))
    return terms, bias, group.coefficient, MASKS[group.mask], GUARDS[group.guard], group.stabilizer
