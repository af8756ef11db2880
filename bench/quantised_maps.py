"""The table of docs/models.md over quantised files: outputs and maps of MiniLM-L6 beside those of the float file.

    PYTHONPATH=. python bench/quantised_maps.py

Over the sentences of bench/faithfulness.py: the cosine of a sentence's embedding with that of the float file, and the
correlation of their maps (cp_lrp, along the embedding of its partner): smallest, median and largest. Static ways
are calibrated on the first eight sentences. Needs what examples/which_words.py needs, and onnxruntime.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faithfulness
import numpy as np
import onnx
from onnxruntime import quantization as q

import pylrp

CALIBRATED = 8
OF_MASKS = ("/model/Mul_1",)  # as net.notes says
Ways = dict[str, Callable[[Path, Path], None]]


class _Sentences(q.CalibrationDataReader):  # type: ignore[misc]  # untyped
    """Encoded sentences, as the quantiser takes them."""

    def __init__(self, texts: list[dict[str, Any]], path: Path):
        kinds = {each.name: each.type.tensor_type.elem_type for each in onnx.load(path).graph.input}
        own = [{n: v[None].astype(onnx.helper.tensor_dtype_to_np_dtype(kinds[n])) for n, v in x.items()} for x in texts]
        self._left: Iterator[Any] = iter(own)

    def get_next(self) -> Any:
        """Return the next sentence, None behind the last."""
        return next(self._left, None)


def ways(texts: list[dict[str, Any]]) -> Ways:
    """Return ways to quantise, each of them a function that reads one file and writes another."""

    def static(source: Path, target: Path, **settings: Any) -> None:
        own = {"quant_format": q.QuantFormat.QDQ, "activation_type": q.QuantType.QUInt8,
               "weight_type": q.QuantType.QInt8} | settings  # fmt: skip
        q.quantize_static(source, target, _Sentences(texts, source), **own)

    def fused(source: Path, target: Path) -> None:
        from onnxruntime.transformers import optimizer

        between = target.with_suffix(".fused.onnx")
        optimizer.optimize_model(str(source), "bert", 12, 384, opt_level=0).save_model_to_file(str(between))
        static(between, target)

    own = {"UseQDQContribOps": True}
    return {
        "dynamic, int8": lambda s, t: q.quantize_dynamic(s, t, weight_type=q.QuantType.QInt8),
        "dynamic, uint8": lambda s, t: q.quantize_dynamic(s, t, weight_type=q.QuantType.QUInt8),
        "dynamic, int8 by channel": lambda s, t: q.quantize_dynamic(
            s, t, per_channel=True, weight_type=q.QuantType.QInt8
        ),
        "fused, static QDQ": fused,
        "static QDQ, all nodes": static,
        "static QDQ, MatMul alone": lambda s, t: static(s, t, op_types_to_quantize=["MatMul"], per_channel=True),
        "static QOperator, all nodes": lambda s, t: static(s, t, quant_format=q.QuantFormat.QOperator),
        "static QDQ in 16 bits, by channel, without the mask": lambda s, t: static(
            s, t, activation_type=q.QuantType.QInt16, per_channel=True, nodes_to_exclude=[*OF_MASKS], extra_options=own
        ),
    }


def main() -> int:
    """Measure, and print the table; names of ways on the command line choose among them."""
    logging.disable(logging.WARNING)
    words = faithfulness.example()
    net, tokenizer = words.load()
    pairs = [*words.PAIRS, *faithfulness.MORE]
    texts = [words.encoded(tokenizer, one) for one, _ in pairs]
    others = [words.embedding(net, words.encoded(tokenizer, other)) for _, other in pairs]
    wanted = [words.embedding(net, x) for x in texts]
    maps = _maps(net, texts, others, wanted)
    print(f"{len(pairs)} sentences | output: least, median, most | map: least, median, most")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "encoder.onnx"
        words.export(source)
        for name, make in ways(texts[:CALIBRATED]).items():
            if sys.argv[1:] and not any(part in name for part in sys.argv[1:]):
                continue
            make(source, target := Path(folder) / "quantised.onnx")
            deployed = pylrp.load(onnx.load(target))
            found = [words.embedding(deployed, x) for x in texts]
            cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(found, wanted, strict=True)]
            own = _maps(deployed, texts, others, found)
            alike = [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(own, maps, strict=True)]
            print(f"{name} | {_spread(cosines)} | {_spread(alike)}", flush=True)
    return 0


def _maps(net: pylrp.Network, texts: list[dict[str, Any]], others: list[Any], outputs: list[Any]) -> list[Any]:
    tops = [(other * output).astype(net.dtype) for other, output in zip(others, outputs, strict=True)]
    return [np.asarray(net.explain(x, top, "cp_lrp").relevance) for x, top in zip(texts, tops, strict=True)]


def _spread(values: list[float]) -> str:
    return ", ".join(f"{number:.4f}" for number in (min(values), float(np.median(values)), max(values)))


if __name__ == "__main__":
    raise SystemExit(main())
