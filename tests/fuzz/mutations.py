"""Alterations of files: of raw bytes, and of what lies within: members of a zip, JSON, fields of ONNX, packed parts.

``child.py`` calls :func:`mutated`; the outcome depends on the file and the generator only.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from typing import Any

import numpy as np

NUMBERS = [0, 1, -1, 2, 3, 7, 255, 65536, 2**31 - 1, -(2**31), 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, -(2**63)]
WORDS: list[Any] = ["", "x", "y", "relu", "\x1b[2J", "../../etc/passwd", "é" * 40, None, True, [], {}, 0.5, 1e308]
WORDS += [float("nan"), float("inf"), 10**400, *NUMBERS]
Rng = np.random.Generator


def mutated(name: str, data: bytes, rng: Rng) -> bytes:
    """Return an altered file."""
    if rng.random() < 0.1:
        return coarse(data, rng)
    if name.endswith(".onnx"):
        return onnx_fields(data, rng) if rng.random() < 0.75 else fine(data, rng)
    if name.endswith((".npz", ".keras")):
        return members(data, rng) if rng.random() < 0.85 else fine(data, rng)
    if name == "seven.mat" and rng.random() < 0.7:
        return packed(data, rng)
    return fine(data, rng)


def pick(items: Any, rng: Rng) -> Any:
    """Return one of them as it is."""
    return items[int(rng.integers(len(items)))]


def fine(data: bytes, rng: Rng, begin: int = 0) -> bytes:
    """Change one to three small places behind `begin`."""
    made = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        if not made:
            break
        at = int(rng.integers(min(begin, len(made) - 1), len(made)))
        kind = int(rng.integers(4))
        if kind < 2:
            made[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            made[at] = int(rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))]))
        else:
            form = str(rng.choice(["<i", ">i", "<q"]))
            size = struct.calcsize(form)
            number = pick(NUMBERS, rng) & ((1 << 8 * size) - 1)
            at -= at % size
            made[at : at + size] = number.to_bytes(size, "little" if form[0] == "<" else "big")
    return bytes(made)


def coarse(data: bytes, rng: Rng) -> bytes:
    """Cut, repeat, drop, insert or swap pieces."""
    a, b = sorted(int(n) for n in rng.integers(0, len(data) + 1, 2))
    b = min(b, a + 64) if rng.random() < 0.7 else b
    kind = int(rng.integers(5))
    if kind == 0:
        return data[:a]
    if kind == 1:
        return data[:b] + data[a:]
    if kind == 2:
        return data[:a] + data[b:]
    if kind == 3:
        return data[:a] + bytes(int(n) for n in rng.integers(0, 256, int(rng.integers(1, 40)))) + data[a:]
    return data[:a] + data[a:b][::-1] + data[b:]


def members(data: bytes, rng: Rng) -> bytes:
    """Change what is in a zip file, which stays one with right check sums."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        entries = [(info.filename, file.read(info), info.compress_type) for info in file.infolist()]
    i = int(rng.integers(len(entries)))
    name, content, method = entries[i]
    kind = rng.random()
    if kind < 0.1:
        entries.pop(i)
    elif kind < 0.15:
        entries.append((name, fine(content, rng), method))
    elif kind < 0.2:
        entries[i] = (
            str(pick(["W1.npy", "W3.npy", "b9.npy", "weights.npy", "\x1b.npy", "a/../b.npy"], rng)),
            content,
            method,
        )
    elif name.endswith(".json") or name == "pylrp.json.npy":
        entries[i] = (name, text(content, rng), method)
    else:
        head = 128 if name.endswith(".npy") and rng.random() < 0.7 else 0  # what is behind it are numbers
        entries[i] = (name, fine(content, rng, head), method)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, content, method in entries:
            file.writestr(zipfile.ZipInfo(name), content, method)
    return made.getvalue()


def text(content: bytes, rng: Rng) -> bytes:
    """Change values in JSON, which may stand in an .npy of bytes."""
    begin = content.find(b"{", 80) if content.startswith(b"\x93NUMPY") else 0
    try:
        found = json.loads(content[begin:])
    except ValueError:
        return fine(content, rng)
    for _ in range(int(rng.integers(1, 3))):
        places = list(places_in(found))
        where, key = places[int(rng.integers(len(places)))]
        kind = rng.random()
        if kind < 0.15:
            where.pop(key)
        elif kind < 0.25 and isinstance(where, list):
            where.insert(key, where[key])
        elif isinstance(where[key], int | float) and rng.random() < 0.7:
            where[key] = pick(NUMBERS[:9], rng) if rng.random() < 0.7 else pick(NUMBERS, rng)
        else:
            where[key] = pick(WORDS, rng)
        if not found:
            break
    made = json.dumps(found).encode()
    if begin:
        stream = io.BytesIO()
        np.save(stream, np.frombuffer(made, np.uint8))
        return stream.getvalue()
    return made


def places_in(item: Any) -> Any:
    """Yield every (container, key)."""
    keys = list(item) if isinstance(item, dict) else range(len(item))
    for key in keys:
        yield item, key
        if isinstance(item[key], dict | list):
            yield from places_in(item[key])


def packed(data: bytes, rng: Rng) -> bytes:
    """Change the inside of a packed variable of a MATLAB file."""
    made, at = bytearray(data[:128]), 128
    variables = []
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        variables.append((kind, data[at + 8 : at + 8 + size]))
        at += 8 + size
    chosen = int(rng.integers(len(variables)))
    for i, (kind, content) in enumerate(variables):
        inside = zlib.compress(fine(zlib.decompress(content), rng)) if i == chosen else content
        made += struct.pack("<II", kind, len(inside)) + inside
    return bytes(made)


def onnx_fields(data: bytes, rng: Rng) -> bytes:
    """Change fields of a model: attributes, names, sizes, constants, the order of nodes."""
    import onnx

    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    for _ in range(int(rng.integers(1, 3))):
        kind = int(rng.integers(7))
        node = pick(graph.node, rng) if graph.node else None
        if node is None:
            break
        if kind == 0 and node.attribute:
            attribute(pick(node.attribute, rng), rng)
        elif kind == 1 and graph.initializer:
            tensor(pick(graph.initializer, rng), rng)
        elif kind == 2:
            names = [name for other in graph.node for name in (*other.input, *other.output)] + [
                "",
                "nowhere",
                "\x1b[2J",
            ]
            which = node.input if node.input and rng.random() < 0.7 else node.output
            if which:
                which[int(rng.integers(len(which)))] = pick(names, rng)
        elif kind == 3:
            nodes = [other.SerializeToString() for other in graph.node]
            i, j = (int(n) for n in rng.integers(0, len(nodes), 2))
            nodes[i], nodes[j] = nodes[j], nodes[i]
            del graph.node[:]
            graph.node.extend(onnx.NodeProto.FromString(one) for one in nodes)
        elif kind == 4:
            node.op_type = pick(
                [other.op_type for other in graph.node] + ["Relu", "LSTM", "Loop", "Exp", "TopK", ""], rng
            )
        elif kind == 5 and graph.input:
            dims = pick(graph.input, rng).type.tensor_type.shape.dim
            if dims:
                pick(dims, rng).dim_value = pick(NUMBERS, rng)
        elif rng.random() < 0.5 and node.input:
            del node.input[int(rng.integers(len(node.input)))]
        else:
            node.input.append(pick(["x", "y", "w", ""], rng))
    return bytes(model.SerializeToString())


def attribute(found: Any, rng: Rng) -> None:
    if found.ints and rng.random() < 0.8:
        found.ints[int(rng.integers(len(found.ints)))] = (
            pick(NUMBERS, rng) if rng.random() < 0.5 else int(rng.integers(5))
        )
    elif found.ints:
        found.ints.append(1)
    elif found.floats:
        found.floats[int(rng.integers(len(found.floats)))] = pick([0, -1, 1e38, float("nan"), float("inf")], rng)
    elif rng.random() < 0.3:
        found.type = int(rng.integers(0, 15))
    elif rng.random() < 0.3:
        found.name = pick(["axis", "pads", "value", "auto_pad", ""], rng)
    else:
        found.i, found.f, found.s = pick(NUMBERS, rng), pick([0, -1, float("nan")], rng), b"\xff\xfe"


def tensor(found: Any, rng: Rng) -> None:
    kind = int(rng.integers(5))
    if kind == 0 and found.dims:
        found.dims[int(rng.integers(len(found.dims)))] = pick(NUMBERS, rng)
    elif kind == 1:
        found.data_type = int(rng.integers(0, 24))
    elif kind == 2 and found.dims:
        dims = [int(n) for n in found.dims]
        del found.dims[:]
        found.dims.extend(int(n) for n in rng.permutation(dims))
    elif found.raw_data:
        found.raw_data = fine(found.raw_data, rng) if kind < 4 else coarse(found.raw_data, rng)
