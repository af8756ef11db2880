"""A list of samples of unequal length: those of one length run together, results are put back in order.

``network.py`` asks :func:`samples_in` what a call was given, and hands over how it explains or predicts a batch.
:func:`in_groups` is the one place that decides what runs together. ``explanation.py`` has the result; where shapes
differ its arrays are lists, one entry a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pylrp._arrays import plain
from pylrp.errors import NotFinite, NotInVocabulary, UnfitInput
from pylrp.layers import Shape
from pylrp.layers.base import Array
from pylrp.network.classes import as_indices
from pylrp.network.entries import to_pass_again
from pylrp.network.execution import Execution
from pylrp.network.explain import Call, Request
from pylrp.network.explanation import Explanation
from pylrp.network.graph import Graph
from pylrp.network.ledger import COLUMNS, Ledger
from pylrp.network.masks import by_value, has_rows, kept
from pylrp.network.packed import Packs
from pylrp.network.requests import Inputs, require_kind, require_names, shapes_of_inputs, start_value
from pylrp.network.sides import without_past

__all__ = ["Samples", "explained", "own_request", "own_targets", "predicted", "samples_in"]


@dataclass(frozen=True)
class Samples:
    """Samples by input.

    Attributes
    ----------
    by_input : dict of str to list of ndarray
        Without a batch axis.
    sole : bool
        Whether they were given as arrays, not as dicts.
    """

    by_input: dict[str, list[Array]]
    sole: bool

    def __len__(self) -> int:
        return len(next(iter(self.by_input.values())))

    def is_finite(self, i: int) -> bool:
        """Tell whether a sample's numbers are."""
        floats = (arrays[i] for arrays in self.by_input.values() if arrays[i].dtype.kind == "f")
        return all(bool(np.isfinite(array).all()) for array in floats)

    def batch(self, which: Sequence[int]) -> Any:
        """Return some samples of equal shapes as a network takes a batch."""
        made = {name: np.stack([arrays[i] for i in which]) for name, arrays in self.by_input.items()}
        return next(iter(made.values())) if self.sole else made


def samples_in(x: Any, graph: Graph) -> Samples | None:
    """Return the samples that a list has; None where it is a batch, as arrays are.

    Parameters
    ----------
    x : object
        What the network was given. A list of dicts, or of tuples for several inputs, is one of samples; a list of
        arrays where their shapes differ.
    graph : Graph
        Of some length.

    Raises
    ------
    ValueError
        If a sample has other inputs than the network, or more than a sample.
    """
    if not isinstance(x, list) or not x:
        return None
    shapes = shapes_of_inputs(graph)
    names = list(shapes)
    if all(isinstance(each, Mapping) for each in x):
        sides = graph.facts.sides
        given = x if sides is None else [without_past(each, sides.past) for each in x]
    elif len(names) > 1 and all(isinstance(each, tuple) and len(each) == len(names) for each in x):
        given = [dict(zip(names, each, strict=True)) for each in x]
    elif len(names) == 1 and _differ(x):
        given = [{names[0]: each} for each in x]
    else:
        return None
    made: dict[str, list[Array]] = {name: [] for name in names}
    beside = {} if graph.facts.sides is None else graph.facts.sides.inputs
    for i, sample in enumerate(given):
        require_names(sample, names, f"x[{i}]")
        for name in names:
            what = f"x[{i}][{name!r}]"
            array = _sample(sample[name], what, len(shapes[name]))
            if name in beside:
                require_kind(array, beside[name], what, name, i)
            made[name].append(array)
    return Samples(made, not isinstance(x[0], Mapping | tuple))


def _differ(x: list[Any]) -> bool:
    try:
        return len({np.shape(plain(each, "x")) for each in x}) > 1
    except ValueError:  # an entry is ragged in itself
        return False


def _sample(value: Any, what: str, rank: int) -> Array:
    """Return a sample without a batch axis; one of length 1 is taken off, as tokenizers add it."""
    array = np.asarray(plain(value, what))
    if array.ndim == rank + 1 and len(array) == 1:
        array = array[0]
    if array.ndim != rank:
        said = f"{what} has shape {array.shape}: in a list each entry is one sample, of {rank} axes"
        raise UnfitInput(said, shape=array.shape)
    return array


def _parts(samples: Samples, packs: Packs | None) -> list[Sequence[int]]:
    """Return the places of samples in parts that run one after the other: more at once save no time."""
    arrays = next(iter(samples.by_input.values()))
    if packs is None or any(array.ndim > 1 for array in arrays):  # not of tokens
        return [range(len(samples))]
    parts: list[list[int]] = [[]]
    taken, most = 0, packs.tokens_at_once
    for i, array in sorted(enumerate(arrays), key=lambda each: each[1].size):  # few lengths in each
        if parts[-1] and taken + array.size > most:
            parts.append([])
            taken = 0
        parts[-1].append(i)
        taken += array.size
    return [*parts]


def in_groups(
    samples: Samples, run: Callable[[Any, Sequence[int]], Any], places: Sequence[int]
) -> list[tuple[Sequence[int], Any]]:
    """Return what ``run`` makes of some samples, those of equal shapes together, with their places in the list.

    Parameters
    ----------
    samples : Samples
    run : callable
        Takes a batch, as a network does, and the places of its samples.
    places : sequence of int
        Of the samples.
    """
    groups: dict[tuple[Shape, ...], list[int]] = {}
    for i in places:
        groups.setdefault(tuple(arrays[i].shape for arrays in samples.by_input.values()), []).append(i)
    made: list[tuple[Sequence[int], Any]] = []
    for which in groups.values():
        with _placed(samples, which):
            made.append((which, run(samples.batch(which), which)))
    return made


@contextmanager
def _placed(samples: Samples, which: Sequence[int]) -> Iterator[None]:
    """Let an error about a batch of some samples say which of the list it means."""
    try:
        yield
    except (NotInVocabulary, UnfitInput) as error:
        raise error.among(which) from error.__cause__
    except NotFinite as error:
        if error.layer is not None:
            raise
        if error.sample is None:
            error.sample = next((at for at, i in enumerate(which) if not samples.is_finite(i)), None)
        raise error.among(which) from error.__cause__


def predicted(
    x: Any, graph: Graph, execution_of: Callable[[Any], Execution], threads: int, packs: Packs | None = None
) -> Any:
    """Return the outputs of a batch, or of a list of samples: an array, a list where shapes differ, a dict by name."""
    samples = samples_in(x, graph)
    if samples is None:
        return execution_of(x).predict(x, threads)
    made: list[tuple[Sequence[int], Any]] = []
    for part in _parts(samples, packs):
        groups = in_groups(samples, lambda batch, which: batch, part)
        executions = []
        for which, batch in groups:
            with _placed(samples, which):
                executions.append(execution_of(batch))
        found: list[Any] = [None] * len(groups)
        if packs is not None and len(groups) > 1:
            inputs = []
            for execution, (which, batch) in zip(executions, groups, strict=True):
                with _placed(samples, which):
                    inputs.append((execution, Inputs(execution.graph, batch)))
            found = packs.predict(inputs, threads)
        for i, (execution, (_, batch)) in enumerate(zip(executions, groups, strict=True)):
            if found[i] is None:
                with _placed(samples, groups[i][0]):
                    found[i] = execution.predict(batch, threads)
        made += [(which, outputs) for (which, _), outputs in zip(groups, found, strict=True)]
    return _joined(made)


def explained(
    samples: Samples, request: Request, execution_of: Callable[[Any], Execution], graph: Graph,
    packs: Packs | None = None,
) -> Explanation:  # fmt: skip
    """Return the explanation of all samples.

    Parameters
    ----------
    samples : Samples
    request : Request
        ``target``, ``against``, ``targets`` and ``masks`` may have an entry for each sample.
    execution_of : callable
        Returns what runs a batch.
    graph : Graph
        Of some length.
    packs : Packs, optional
        What runs several lengths together.

    Raises
    ------
    ValueError
        If there are not as many targets as samples.
    """

    def settled(batch: Any, which: Sequence[int]) -> Call:
        return Call(execution_of(batch), own_request(request, batch, which, len(samples), graph))

    groups: list[tuple[Sequence[int], Explanation]] = []
    notes: list[str] = []
    for part in _parts(samples, packs):
        calls = in_groups(samples, settled, part)
        if packs is not None and len(calls) > 1:
            notes += packs.run([call for _, call in calls])
        else:
            for _, call in calls:
                call.propagate()
        groups += [(which, call.explanation()) for which, call in calls]
    return _all(groups, samples, request, graph, notes)


def own_request(request: Request, x: Any, which: Sequence[int], count: int, graph: Graph) -> Request:
    """Return the request for some of ``count`` samples: their targets, and their rows of masks.

    Parameters
    ----------
    request : Request
    x : object
        These samples, as a network takes them.
    which : sequence of int
        Their places.
    count : int
    graph : Graph
        Of some length.

    Raises
    ------
    ValueError
        If there are not as many targets as samples.
    """
    rank = len(graph.shapes[start_value(graph, request.output)])
    masks, targets = by_value(graph, request.masks), request.targets
    if isinstance(masks, Mapping):
        masks = {name: _own_mask(mask, graph.shapes.get(name), which, count) for name, mask in masks.items()}
    if (
        targets is not None and hasattr(targets, "__len__") and not isinstance(targets, str | Mapping)
    ):  # anything else is refused later
        targets = [own_targets(each, which, count, rank, "a target") for each in targets]
    return replace(
        request,
        x=x,
        target=own_targets(request.target, which, count, rank, "target"),
        against=own_targets(request.against, which, count, rank, "against"),
        targets=targets,
        masks=masks,
    )


def own_targets(target: Any, which: Sequence[int], count: int, rank: int, what: str) -> Any:
    """Return the targets of some samples; one for all stays as it is."""
    single = isinstance(target, np.ndarray | np.generic) and target.ndim == 0
    for_all = single or isinstance(target, str | Mapping) or not hasattr(target, "__len__")
    if for_all or (isinstance(target, tuple) and len(target) == rank > 1):
        return target
    if len(target) != count:
        raise ValueError(f"{what} has {len(target)} entries, x has {count} samples")
    if isinstance(target, np.ndarray):
        return target[which]
    chosen = [target[i] for i in which]
    return np.stack(chosen) if all(isinstance(each, np.ndarray) and each.ndim for each in chosen) else chosen


def _own_mask(mask: Any, shape: Shape | None, which: Sequence[int], count: int) -> Any:
    """Return the rows of a mask that has one a sample; of a value of this shape, None: of no value there is."""
    rows = shape is not None and has_rows(mask, shape) and len(mask) == count
    return np.asarray(mask)[which] if rows else mask


def _ordered(groups: list[tuple[Sequence[int], Any]]) -> list[Any]:
    """Return the entries of arrays, one a sample, in the order of the samples."""
    found = {i: array[j] for which, array in groups for j, i in enumerate(which)}
    return [found[i] for i in range(len(found))]


def _joined(groups: list[tuple[Sequence[int], Any]]) -> Any:
    """Return arrays of groups as one, a list where shapes differ; dicts by name; None where a group has none."""
    first = groups[0][1]
    if isinstance(first, dict):
        return {name: _joined([(which, found[name]) for which, found in groups]) for name in first}
    if any(found is None for _, found in groups):
        return None
    arrays = _ordered(groups)
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays


def _all(
    groups: list[tuple[Sequence[int], Explanation]], samples: Samples, request: Request, graph: Graph,
    notes: Sequence[str],
) -> Explanation:  # fmt: skip
    first = groups[0][1]

    def join(take: Callable[[Explanation], Any]) -> Any:
        return _joined([(which, take(ex)) for which, ex in groups])

    targets = join(lambda ex: ex.target)
    at_hand = set.intersection(*(set(ex.layers.kept) for _, ex in groups))

    def relevance_of(name: str) -> Any:
        return join(lambda ex: ex.layers[name])

    layers = first.layers.anew({name: relevance_of(name) for name in first.layers if name in at_hand}, relevance_of)
    sides = graph.facts.sides
    carrying = list(graph.inputs) if sides is None else sides.carrying
    inputs = {name: _joined([(range(len(samples)), samples.by_input[name])]) for name in carrying}
    masks = kept(by_value(graph, request.masks), graph.shapes)
    settings = {**first.settings, **masks, "single": False, "samples": True}
    for what, given in (("against", request.against), ("targets", request.targets)):
        if given is not None:
            settings[what] = [to_pass_again(each) for each in given] if isinstance(given, list) else given
    return Explanation(
        relevance=join(lambda ex: ex.relevance),
        output=join(lambda ex: ex.output),
        target=targets if targets is None or type(first.target) is np.ndarray else as_indices(targets),
        layers=layers,
        ledger=_ledgers(groups),
        input=inputs if len(inputs) > 1 else next(iter(inputs.values())),
        settings=settings,
        notes=tuple(dict.fromkeys([note for _, ex in groups for note in ex.notes] + [*notes])),
        features=first.features,
        positions=join(lambda ex: ex.positions),
        coefficients=first.coefficients.anew({}, lambda name: join(lambda ex: ex.coefficients[name])),
    )


def _ledgers(groups: list[tuple[Sequence[int], Explanation]]) -> Any:
    """Return the ledgers of all samples: rows of layers that a group has not took nothing there."""
    first = groups[0][1].ledger
    if isinstance(first, list):
        return [_ledger([(which, ex.ledger[t]) for which, ex in groups]) for t in range(len(first))]
    return _ledger([(which, ex.ledger) for which, ex in groups])


def _ledger(groups: list[tuple[Sequence[int], Ledger]]) -> Ledger:
    rules = {name: rule for _, each in groups for name, rule in zip(each.names, each.rules, strict=True)}
    data = np.zeros((len(rules), len(COLUMNS), sum(len(which) for which, _ in groups)))
    rows = {name: row for row, name in enumerate(rules)}
    for which, each in groups:
        data[np.ix_([rows[name] for name in each.names], range(len(COLUMNS)), which)] = each.data
    return Ledger(data, list(rules), list(rules.values()))
