"""Shared by all tests: a seeded generator, Hypothesis's profiles, a word about peers that are not installed here."""

import importlib.util

import drawn  # noqa: F401  the profiles have to be there before test modules are read
import numpy as np
import pytest

PEERS_HERE = all(importlib.util.find_spec(name) for name in ("torch", "zennit", "captum"))
collect_ignore = [] if PEERS_HERE else ["peers"]


def pytest_report_header() -> str:
    """Say whether the comparisons with other libraries are part of this run."""
    return "peers: zennit and captum" if PEERS_HERE else "peers: not installed here, run `make test-peers`"


@pytest.fixture
def rng() -> np.random.Generator:
    """Return the same random numbers in every run."""
    return np.random.default_rng(20)
