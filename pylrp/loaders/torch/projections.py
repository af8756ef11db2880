"""LSTMs whose states are projected, ``proj_size``, which torch's exporter can't write: as an LSTM and a linear map.

The state is ``h = P m`` of what the cell puts out, ``m = o tanh(c)``, so that ``U h = (U P) m``: the cell is an LSTM
with the state m and the weights U P, and h is a linear map of m at every step. Relevance is that of the two products
one after the other, since neither has a bias between them. A first state h belongs to the m of least length with P m =
h.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pylrp.errors import UnsupportedLayer

__all__ = ["written_out"]

_PART = "without_projection"


@contextmanager
def written_out(torch: Any, name: str, part: Any) -> Iterator[None]:
    """Let a module with projections run as LSTMs without, each with a linear map behind it.

    Raises
    ------
    UnsupportedLayer
        If a projection maps onto fewer numbers than it has rows: first states need not belong to any m then.
    """
    directions = ["", "_reverse"] if part.bidirectional else [""]
    maps, layers = [], torch.nn.ModuleList()
    for number in range(part.num_layers):
        suffixes = [f"_l{number}{direction}" for direction in directions]
        maps.append([getattr(part, f"weight_hr{suffix}").detach() for suffix in suffixes])
        layers.append(_layer(torch, part, suffixes))
    if any(int(torch.linalg.matrix_rank(weight.double())) < len(weight) for each in maps for weight in each):
        raise UnsupportedLayer(
            name or "LSTM",
            "LSTM",
            f"has a projection onto fewer numbers than its proj_size, {part.proj_size}",
            "write the cell as a loop in forward",
        )
    back = [[torch.linalg.pinv(weight.double()).to(weight.dtype) for weight in each] for each in maps]
    linear, rnn, count = torch.nn.functional.linear, torch.nn.utils.rnn, len(directions)

    def mapped(states: Any, weights: Any) -> Any:
        """Map the states (directions, ..., n), each direction's by its own weights."""
        return torch.cat([linear(states[d : d + 1], weight) for d, weight in enumerate(weights)])

    def forward(x: Any, hx: Any = None) -> Any:
        packed, lengths = isinstance(x, rnn.PackedSequence), None
        ends: tuple[list[Any], list[Any]] = ([], [])
        order = (x.sorted_indices, x.unsorted_indices) if packed else ()  # of the samples, by their lengths
        for number, layer in enumerate(layers):
            at = slice(number * count, (number + 1) * count)
            state = None if hx is None else (mapped(hx[0][at], back[number]), hx[1][at])
            y, (h, c) = layer(x, state)
            if packed:
                y, lengths = rnn.pad_packed_sequence(rnn.PackedSequence(y.data, y.batch_sizes), part.batch_first)
            sides = y.split(part.hidden_size, -1)
            x = torch.cat([linear(side, weight) for side, weight in zip(sides, maps[number], strict=True)], -1)
            if packed:
                x = rnn.pack_padded_sequence(x, lengths, part.batch_first)
                x = rnn.PackedSequence(x.data, x.batch_sizes, *order)
            ends[0].append(mapped(h, maps[number]))
            ends[1].append(c)
        return x, (torch.cat(ends[0]), torch.cat(ends[1]))

    own = {"forward": part.__dict__["forward"]} if "forward" in part.__dict__ else {}
    part.__dict__["forward"] = forward
    part._modules[_PART] = layers
    try:
        yield
    finally:
        del part.__dict__["forward"], part._modules[_PART]
        part.__dict__.update(own)


def _layer(torch: Any, part: Any, suffixes: list[str]) -> Any:
    """Return one layer with the state before the projection."""
    first = getattr(part, f"weight_ih{suffixes[0]}")
    made = torch.nn.LSTM(
        first.shape[1], part.hidden_size, bias=part.bias, batch_first=part.batch_first,
        bidirectional=part.bidirectional, dtype=first.dtype,
    ).eval()  # fmt: skip
    for suffix in suffixes:
        to = suffix.replace(suffix.partition("_reverse")[0], "_l0")
        recurrent, projection = (getattr(part, f"{name}{suffix}").double() for name in ("weight_hh", "weight_hr"))
        arrays = {"weight_ih": getattr(part, f"weight_ih{suffix}"), "weight_hh": recurrent @ projection}
        if part.bias:
            arrays |= {name: getattr(part, f"{name}{suffix}") for name in ("bias_ih", "bias_hh")}
        for name, array in arrays.items():
            getattr(made, f"{name}{to}").data = array.detach().to(first.dtype)
    return made.requires_grad_(False)
