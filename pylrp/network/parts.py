"""A large batch in parts, one after the other: less memory for activations, and progress that can be told.

``network.py`` calls in for tables of many rows, and where progress is asked for. Results are those of one call; a part
has at least as many samples as need the same paths in the core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pylrp.layers.base import Array, product
from pylrp.network.classes import as_indices
from pylrp.network.columns import Table
from pylrp.network.entries import to_pass_again
from pylrp.network.explain import Request, explain
from pylrp.network.explanation import Explanation
from pylrp.network.frames import origin_of
from pylrp.network.graph import Graph
from pylrp.network.ledger import Ledger
from pylrp.network.masks import by_value, kept
from pylrp.network.samples import own_request

__all__ = ["explain_in_parts", "part_size", "rows_of"]

_ROWS = 4096  # of a table
_BYTES = 64 << 20  # of the values of a part, where progress is asked for


def rows_of(x: Any, rows: slice | Array) -> Any:
    """Return some samples of an input: an array, a table or a data frame."""
    if isinstance(x, Table):
        return Table(x.to_numpy()[rows], x.columns)
    return x.iloc[rows] if hasattr(x, "iloc") else x[rows]


def _count(x: Any, graph: Graph) -> int | None:
    """Return how many samples there are; None where that takes a closer look."""
    shape = x.to_numpy().shape if isinstance(x, Table) else getattr(x, "shape", None)
    if not isinstance(shape, tuple) or len(graph.inputs) > 1 or graph.facts.sides or graph.facts.lengths:
        return None
    (wanted,) = graph.inputs.values()
    return shape[0] if len(shape) == len(wanted) + 1 else None


def part_size(x: Any, graph: Graph, told: bool) -> int | None:
    """Return how many samples a part has; None for one call.

    Parameters
    ----------
    x : object
        What the network was given.
    graph : Graph
    told : bool
        Whether progress is to be told.
    """
    table = set(map(len, graph.inputs.values())) == {1}
    count = _count(x, graph) if table or told else None
    if count is None:
        return None
    size = _ROWS if table else None
    if told and not table:
        values = sum(product(graph.shapes[name]) for name in graph.shapes) * graph.dtype.itemsize
        size = max(8, _BYTES // values)
    if size is None or count < 2 * size:
        return None
    return -(-count // (count // size))  # of about one size: none is small


def explain_in_parts(
    execution: Any, request: Request, size: int, report: Callable[[int, int | None], None]
) -> Explanation:
    """Return the explanation of a batch, made in parts.

    Parameters
    ----------
    execution : Execution
    request : Request
    size : int
        Samples of a part.
    report : callable
        Is told how many samples are done, and of how many.
    """
    graph = execution.graph
    count = _count(request.x, graph) or 0
    slices = [slice(i, min(i + size, count)) for i in range(0, count, size)]

    def own(rows: slice) -> Request:
        return own_request(request, rows_of(request.x, rows), range(count)[rows], count, graph)

    joined: dict[str, Any] = {}
    first, notes = None, dict[str, None]()
    for rows in slices:
        try:
            ex = explain(execution, own(rows))
        except ValueError:
            return explain(execution, request)  # which raises as well, and names the place in the whole
        first = ex if first is None else first
        notes |= dict.fromkeys(ex.notes)
        arrays = _arrays(ex)
        if _expanded(graph, request):
            arrays["input"] = ex.input
        for name, value in arrays.items():
            _put(joined, name, value, rows, count)
        report(rows.stop, count)
    assert first is not None
    if first.target is None:
        joined["target"] = None
    if not _expanded(graph, request):
        joined["input"] = _given(request.x)

    def found(take: Callable[[Explanation], Array], **more: Any) -> Array:
        return np.concatenate([take(explain(execution, replace(own(rows), **more))) for rows in slices])

    return _whole(first, joined, tuple(notes), request, graph, found)


def _arrays(ex: Explanation) -> dict[str, Any]:
    ledgers = ex.ledger if isinstance(ex.ledger, list) else [ex.ledger]
    found = {f"ledger/{t}": ledger.data for t, ledger in enumerate(ledgers)}
    found |= {f"layer/{name}": array for name, array in ex.layers.kept.items()}
    own = {"relevance": ex.relevance, "output": ex.output, "target": ex.target, "positions": ex.positions}
    for what, value in own.items():
        if isinstance(value, dict):
            found |= {f"{what}/{name}": array for name, array in value.items()}
        elif value is not None:
            found[what] = np.asarray(value)
    return found


def _expanded(graph: Graph, request: Request) -> bool:
    """Return whether an explanation's input is what a front has made of the table."""
    front = graph.facts.front
    return front is not None and (front.expanded if request.expanded is None else request.expanded)


def _given(x: Any) -> Any:
    """Return the input as an explanation has it."""
    return x.to_numpy() if hasattr(x, "to_numpy") else np.asarray(x)


def _put(joined: dict[str, Any], name: str, value: Array, rows: slice, count: int) -> None:
    """Put a part's array into the whole: samples are the last axis of ledgers, else the first."""
    last = name.startswith("ledger/")
    if name not in joined:
        shape = (*value.shape[:-1], count) if last else (count, *value.shape[1:])
        joined[name] = np.empty(shape, value.dtype)
    if last:
        joined[name][..., rows] = value
    else:
        joined[name][rows] = value


def _whole(
    first: Explanation, joined: dict[str, Any], notes: tuple[str, ...], request: Request, graph: Graph,
    found: Callable[..., Array],
) -> Explanation:  # fmt: skip
    def of(what: str) -> Any:
        named = {name.partition("/")[2]: array for name, array in joined.items() if name.startswith(f"{what}/")}
        return named or joined.get(what)

    ledgers = [Ledger(joined[name], like.names, like.rules) for name, like in zip(
        sorted((n for n in joined if n.startswith("ledger/")), key=lambda n: int(n[7:])),
        first.ledger if isinstance(first.ledger, list) else [first.ledger], strict=True,
    )]  # fmt: skip
    settings = {**first.settings, **kept(by_value(graph, request.masks), graph.shapes)}
    for what, given in (("against", request.against), ("targets", request.targets)):
        if given is not None and what == "targets":
            settings[what] = [to_pass_again(each) for each in given]
        elif given is not None and hasattr(given, "__len__") and not isinstance(given, str | Mapping):
            settings[what] = to_pass_again(given)
    targets = joined["target"]
    layers = first.layers.anew(of("layer") or {}, lambda name: found(lambda ex: ex.layers[name], layers=[name]))
    coefficients = first.coefficients.anew({}, lambda name: found(lambda ex: ex.coefficients[name]))
    return replace(
        first,
        relevance=of("relevance"),
        output=of("output"),
        target=targets if targets is None or type(first.target) is np.ndarray else as_indices(targets),
        layers=layers,
        ledger=ledgers if isinstance(first.ledger, list) else ledgers[0],
        input=joined["input"],
        origin=origin_of(request.x),
        settings=settings,
        notes=notes,
        positions=of("positions"),
        coefficients=coefficients,
    )
