"""What a model computes of the sizes of its values, noted while it is read, to be computed again for other sizes.

``onnx/reader.py`` leaves a :class:`Trace` with the graph; ``network/patterns.py`` asks it for a length.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from onnx import NodeProto

from pylrp.loaders.onnx.constants import Constant
from pylrp.loaders.onnx.folding import fold
from pylrp.loaders.onnx.node import Call, Translation
from pylrp.network.sides import Sides

__all__ = ["Trace"]

_SMALL = 256  # bytes of constants that are compared by what they hold


class Trace:
    """The constants of a model that depend on sizes.

    Attributes
    ----------
    sources : dict of str to Constant
        The sizes of values that are no constants.
    taken : dict of str to list of tuple of str
        The constants that layers or side values are made of; by name, what each node that takes one is called.

    Parameters
    ----------
    nodes : iterable of NodeProto
    translation : Translation
    sides : Sides or None
        The program of side values that came of it.
    """

    def __init__(self, nodes: Iterable[NodeProto], translation: Translation, sides: Sides | None):
        self._translation = translation
        used = set() if sides is None else {step.output for step in sides.steps}
        constants = translation.constants
        self.sources: dict[str, Constant] = {}
        self.taken: dict[str, list[tuple[str, ...]]] = {}
        self._steps: list[NodeProto] = []
        self._of_sizes: set[str] = set()
        for node in nodes:
            outputs = [name for name in node.output if name]
            folded = bool(outputs) and all(name in constants for name in outputs)
            if node.op_type in ("Shape", "Size") and node.input[0] not in constants and folded:
                self.sources[outputs[0]] = constants[outputs[0]]
            elif self._of_sizes.isdisjoint(node.input):
                continue
            elif folded:
                self._steps.append(node)
            else:
                if any(name in translation.sides and name not in used for name in outputs):
                    continue  # of which nothing but the size is asked
                for name in self._of_sizes.intersection(node.input):
                    self.taken.setdefault(name, []).append((node.name, *outputs))
                continue
            self._of_sizes.update(outputs)

    def constant(self, name: str) -> Constant:
        """Return a constant as it was when the model was read."""
        return self._translation.constants[name]

    def replay(self, others: Sequence[Trace]) -> Replay:
        """Return what computes the constants for other sizes; ``others`` are traces of the same model for some."""
        return Replay(self._translation, self._steps, self._same(others), self._of_sizes)

    def _same(self, others: Sequence[Trace]) -> dict[str, str]:
        """Return for each name the first one that has equal numbers for any length."""
        first: dict[object, str] = {}
        same: dict[str, str] = {}
        for name in self.sources:
            pairs = [(c.first.tobytes(), c.second.tobytes()) for c in (t.sources[name] for t in (self, *others))]
            same[name] = first.setdefault(("size", *pairs), name)
        for node in self._steps:
            settings = tuple(sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute))
            key = node.domain, node.op_type, settings, *(self._key(name, same) for name in node.input)
            for position, name in enumerate(node.output):
                same[name] = first.setdefault((position, *key), name)
        return same

    def _key(self, name: str, same: Mapping[str, str]) -> object:
        if not name or name in same:
            return same.get(name)
        constant = self.constant(name)
        if constant.first is not constant.second or constant.first.nbytes > _SMALL:
            return "named", name
        return constant.per_sample, constant.first.dtype.str, constant.first.shape, constant.first.tobytes()


class Replay:
    """Computes a model's constants for other sizes: each number once, however many nodes compute it."""

    def __init__(
        self, translation: Translation, steps: Sequence[NodeProto], same: Mapping[str, str], of_sizes: set[str]
    ):
        self._constants = translation.constants.without(of_sizes)
        self._translation = replace(translation, nodes=[], values={}, pending={}, calls={}, producers={})
        self.same = dict(same)
        self._calls = [
            Call.again(node, translation) for node in steps if any(same[name] == name for name in node.output if name)
        ]
        for call in self._calls:
            call.rename_inputs(same)

    def constants(self, sources: Mapping[str, Constant]) -> dict[str, Constant]:
        """Return the constants by name, where equal ones have one name (``same``).

        Raises
        ------
        UnsupportedLayer, ValueError
            If something can't be computed for these sizes.
        """
        known = self._constants.without(())
        for name, constant in sources.items():
            known[name] = constant
        translation = replace(self._translation, constants=known)
        for call in self._calls:
            mine = copy.copy(call)
            mine.translation = translation
            fold(mine)
        return {name: known[name] for name in set(self.same.values())}
