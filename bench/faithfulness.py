"""The table of docs/evaluation.md over tokens: which maps agree with leaving words out, on MiniLM-L6 and 24 pairs.

    PYTHONPATH=. python bench/faithfulness.py

The score of a sentence is its embedding's product with that of its partner. Needs what examples/which_words.py needs;
prints the table, and one line with Pearson's correlation of each.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pylrp.evaluate import evaluate_tokens

MAPS = ("cp_lrp", "attnlrp", "gradient", "integrated gradients")
MORE = [
    ("The children are playing football in the park.", "Some kids kick a ball around on the grass."),
    ("He forgot his umbrella and got completely wet.", "Without protection from the rain the man was soaked."),
    ("The new phone has an excellent camera.", "This mobile takes great pictures."),
    ("Scientists discovered water on a distant planet.", "Researchers found traces of H2O far away in space."),
    ("The restaurant serves delicious Italian food.", "You can eat very good pasta and pizza there."),
    ("Our flight was cancelled because of a storm.", "The plane could not take off due to bad weather."),
    ("She speaks four languages fluently.", "The woman is able to talk in many tongues."),
    ("The old bridge was closed for repairs.", "Cars cannot cross the river while workers fix it."),
    ("I would like to return these shoes.", "Can I give this footwear back to the shop?"),
    ("The museum opens at nine in the morning.", "Visitors may enter the exhibition from 9 am."),
    ("A dog is chasing a squirrel up a tree.", "The puppy runs after a small animal."),
    ("Regular exercise is good for your heart.", "Sport keeps people healthy."),
    ("The company hired fifty new engineers.", "Many technical staff joined the firm this year."),
    ("He plays chess with his neighbour every Sunday.", "At weekends the two men meet for a board game."),
    ("The soup was too salty for me.", "I did not enjoy the broth, there was much salt in it."),
    ("Our teacher explained the theorem twice.", "The professor repeated the proof for the class."),
]


def main() -> int:
    """Measure, and print the table."""
    words = example()
    net, tokenizer = words.load()
    pairs = [*words.PAIRS, *MORE]
    texts = [words.encoded(tokenizer, one) for one, _ in pairs]
    directions: list[Any] = [words.embedding(net, words.encoded(tokenizer, other)) for _, other in pairs]
    special = [tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]")]
    found = evaluate_tokens(net, texts, MAPS, target=directions, keep=special)
    print(found.table())
    for name in found.composites:
        aopc = found.curves[name].aopc
        print(f"{name}: score lost by leaving out most relevant first {aopc['most'].mean():.2f}, least relevant first "
              f"{aopc['least'].mean():.2f}")  # fmt: skip
    print(f"Pearson with leaving one out, {len(pairs)} pairs: "
          + ", ".join(f"{name} {np.nanmean(found.pearson[name]):.2f}" for name in found.composites))  # fmt: skip
    return 0


def example() -> ModuleType:
    """Return examples/which_words.py."""
    here = Path(__file__).resolve().parent  # has a transformers.py of its own
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here]
    path = Path(__file__).parents[1] / "examples" / "which_words.py"
    spec = importlib.util.spec_from_file_location("which_words", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["which_words"] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    raise SystemExit(main())
