"""Types of the compiled core. Checked by hand against csrc/bindings; tests/core/test_stub.py compares the names."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

# The columns of a ledger's page, in order: what arrives, what goes on, and the causes.
LEDGER_COLUMNS: tuple[str, ...]

class CoreError(ValueError):
    node: int | None  # the number of the node that a graph can't have

class Rule:
    def __init__(self, groups: Sequence[tuple[Any, ...]], treatment: str = ...) -> None: ...

class Plan:
    def explain(
        self,
        inputs: list[NDArray[Any]],
        targets: Sequence[NDArray[Any] | tuple[NDArray[Any], NDArray[Any]] | None],
        one: bool,
        start: int,
        outputs: list[int],
        wanted: list[int],
        masks: list[tuple[int, NDArray[Any]]],
        threads: int,
        zeros: tuple[int, float] | None = ...,
        checkpoint: bool = ...,
    ) -> tuple[list[NDArray[Any]], list[NDArray[Any] | None], list[NDArray[Any]], NDArray[Any], bool]: ...

class Graph:
    def __init__(
        self,
        dtype: str,
        layouts: list[tuple[list[int], list[int], int]],
        nodes: list[tuple[str, dict[str, Any], list[int]]],
    ) -> None: ...
    def forward(
        self, inputs: list[NDArray[Any]], wanted: list[int], threads: int, bfloat16: bool = ...
    ) -> list[NDArray[Any]]: ...
    def plan(
        self,
        rules: Sequence[Rule | None],
        bounds: Sequence[tuple[NDArray[Any], NDArray[Any]] | None],
        threads: int,
        bfloat16: bool = ...,
    ) -> Plan: ...

def relevance(
    weights: Sequence[NDArray[Any]],
    biases: Sequence[NDArray[Any] | None],
    acts: Sequence[NDArray[Any] | None],
    rules: Sequence[Rule],
    bounds: Sequence[tuple[NDArray[Any], NDArray[Any]] | None],
    out: NDArray[Any],
    threads: int,
    layers: bool,
    ledger: bool,
    bfloat16: bool = ...,
) -> tuple[Any, NDArray[Any]]: ...
def first_not_finite(array: NDArray[Any]) -> tuple[int, ...] | None: ...
def isa() -> str: ...
def isa_built() -> list[str]: ...
def isa_supported() -> list[str]: ...
def compiler() -> str: ...
def conv_path_counts() -> dict[str, int]: ...  # runs of each path that is built: for tests and diagnosis
def left_work() -> dict[str, int]: ...  # multiply-adds in tiles, in lists (as tiles would need them), done by lists
def force_left_path(path: str) -> None: ...  # "counted" (the default), "tiles", "lists", "pairs": for tests, timing
def bfloat16_instruction() -> str: ...  # "avx512_bf16", "bfdot" or "emulated"
def force_bfloat16_path(path: str) -> None: ...  # "best" (the default), "words", "emulated" or "numbers": for tests
def rounded_to_bfloat16(numbers: NDArray[Any]) -> NDArray[Any]: ...
def kept_memory() -> int: ...
def kept_memory_limit() -> int: ...
def limit_kept_memory(bytes: int) -> None: ...
def release_kept_memory() -> None: ...
def threads() -> int: ...
def set_threads(count: int) -> None: ...
def measure_fma_peak(threads: int, double_precision: bool = False) -> float: ...
def measure_read_bandwidth(threads: int, bytes: int = ...) -> float: ...
