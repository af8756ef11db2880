"""Relevance by LXT's efficient rules, in a process of its own: it replaces methods of classes of torch.

python lxt_maps.py MODEL IMPLEMENTATION OUT.npz
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np

sys.path[0] = str(Path(__file__).parent.parent)  # the folder of this file has a transformers.py of its own

import peers.torch_networks  # noqa: E402, F401  (makes torchvision importable, which LXT imports)
from peers.test_huggingface import batch, made, main  # noqa: E402


def run(name: str, implementation: str, path: str) -> None:
    from lxt.efficient import monkey_patch

    monkey_patch(importlib.import_module(f"transformers.models.{name}.modeling_{name}"))
    model, x = made(name, implementation).double(), batch(name)
    rows = model.get_input_embeddings()(x["input_ids"]).detach().requires_grad_()
    y = main(model(inputs_embeds=rows, attention_mask=x["attention_mask"]))
    (y[:, 1] if y.ndim == 2 else y[:, -2, 1]).sum().backward()
    np.savez(path, output=y.detach().numpy(), relevance=(rows * rows.grad).sum(-1).detach().numpy())


if __name__ == "__main__":
    run(*sys.argv[1:])
