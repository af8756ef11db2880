"""Throughput under pytest-benchmark: one group a case, so that its own table compares the competitors.

    pytest bench --benchmark-only --benchmark-columns=median,iqr,ops,rounds

Everybody's result is checked before the clock starts. The groups' members run one after the other here; ratios to
be quoted come from ``run.py``, where they alternate.
"""

from __future__ import annotations

import os
from functools import lru_cache

import by_hand
import peers
import pytest
from cases import CASES, TOLERANCE, Case, Problem
from pytest_benchmark.fixture import BenchmarkFixture

THREADS = min(2, os.cpu_count() or 1)
MEASURED = [case for case in CASES if case.group != "threads"]


@lru_cache(maxsize=1)
def problem_of(case: Case) -> Problem:
    """Keep the last case only: its tests follow each other."""
    return case.problem()


@pytest.fixture(scope="session", autouse=True)
def reference_follows_the_definitions() -> None:
    by_hand.check_reference()


@pytest.mark.parametrize("competitor", peers.COMPETITORS, ids=lambda competitor: competitor.name)
@pytest.mark.parametrize("case", MEASURED, ids=lambda case: case.name)
@pytest.mark.benchmark(min_rounds=3, max_time=0.5, warmup=False)
@pytest.mark.filterwarnings("default")  # the peers' own warnings are not ours to fix
def test_throughput(benchmark: BenchmarkFixture, case: Case, competitor: peers.Competitor) -> None:
    problem = problem_of(case)
    if obstacle := competitor.obstacle(problem):
        pytest.skip(f"{competitor.name}: {obstacle}")
    peers.use_threads(THREADS)
    call = competitor.prepare(problem, THREADS)
    assert by_hand.relative_error(call(), problem.expected(competitor.computes)) <= TOLERANCE[case.dtype]

    benchmark.group = case.name
    benchmark.extra_info.update(computes=competitor.computes, threads=THREADS, flops=problem.flops)
    benchmark(call)
