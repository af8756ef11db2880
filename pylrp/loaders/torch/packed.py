"""Recurrent layers of packed sequences of which the last state alone is used, which torch's exporter can't write.

It looks for who takes the packed output and fails where nobody does. So the output is padded again and returned beside
those of the module; ``torch/export.py`` takes it off the file that is written then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["has_packed", "padded_too", "without_last_outputs"]


def has_packed(torch: Any, module: Any) -> bool:
    """Whether there is a recurrent layer, which may be given packed sequences."""
    return any(isinstance(part, torch.nn.RNNBase) for part in module.modules())


@contextmanager
def padded_too(torch: Any, module: Any) -> Iterator[list[int]]:
    """Let a module return the outputs of its packed sequences, too; the list says how many these were."""
    rnn, count, found = torch.nn.utils.rnn, list[int](), list[Any]()

    def keep(part: Any, given: Any, made: Any) -> None:
        if isinstance(made[0], rnn.PackedSequence):
            found.append(rnn.pad_packed_sequence(made[0], batch_first=True)[0])

    def add(part: Any, given: Any, made: Any) -> Any:
        count[:] = [len(found)]
        more = tuple(found)
        found.clear()
        return (made, *more)

    hooks = [part.register_forward_hook(keep) for part in module.modules() if isinstance(part, torch.nn.RNNBase)]
    hooks.append(module.register_forward_hook(add))
    try:
        yield count
    finally:
        for hook in hooks:
            hook.remove()


def without_last_outputs(path: Path, count: int) -> None:
    """Take the last outputs off a file."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    del model.graph.output[len(model.graph.output) - count :]
    onnx.save(model, str(path))
