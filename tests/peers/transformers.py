"""Small transformers in torch with random weights, and their relevance as the gradient of the same network.

Each network computes with an object of operations. :class:`Plain` is what is exported; :class:`Relevance` has the same
values and another gradient: halves of products, probabilities and standard deviations as constants, ``f(x) / x`` as a
factor. Then relevance is input times gradient (Achtibat et al. 2024; Ali et al. 2022), with no code of pylrp.
"""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["Bert", "Decoder", "Plain", "Relevance", "Sdpa", "TextbookVit", "Vit", "relevance"]


class Plain:
    """What a network computes."""

    def gelu(self, x):
        return nn.functional.gelu(x)

    def norm(self, layer, x):
        return layer(x)

    def attend(self, q, k, v, mask=None):
        """softmax(q k^T / sqrt(d) + mask) v, (batch, heads, tokens, width)."""
        s = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        return (s if mask is None else s + mask).softmax(-1) @ v


class Sdpa(Plain):
    """The same by torch's fused function."""

    def attend(self, q, k, v, mask=None):
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class Relevance(Plain):
    """The same values; the gradient is that of relevance."""

    def __init__(self, taylor=True):
        self.taylor = taylor

    def gelu(self, x):
        return x * (nn.functional.gelu(x) / x).detach()

    def norm(self, layer, x):
        if isinstance(layer, nn.Identity):
            return x
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt().detach()
        return centred / scale * layer.weight + layer.bias

    @staticmethod
    def half(c):
        return c / 2 + (c / 2).detach()

    def attend(self, q, k, v, mask=None):
        s = self.half(q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
        p = (s if mask is None else s + mask).softmax(-1)
        p = torch.nan_to_num(p)  # a row that is masked
        return self.half(p @ v) if self.taylor else p.detach() @ v


class Block(nn.Module):
    """Attention and two linear layers, each around a residual sum, normalised before or behind."""

    def __init__(self, width, heads, hidden, norm, first, packed):
        super().__init__()
        self.heads, self.first, self.packed = heads, first, packed
        self.qkv = nn.Linear(width, 3 * width) if packed else nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = norm(width), norm(width)
        self.ops = Plain()

    def split(self, x):
        n, t, d = x.shape
        if self.packed:  # as in timm: the batch moves
            return self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return [part(x).view(n, t, self.heads, d // self.heads).transpose(1, 2) for part in self.qkv]

    def attention(self, x, mask):
        return self.out(self.ops.attend(*self.split(x), mask).transpose(1, 2).reshape(x.shape))

    def forward(self, x, mask=None):
        ops = self.ops
        if self.first:
            x = x + self.attention(ops.norm(self.norm1, x), mask)
            return x + self.down(ops.gelu(self.up(ops.norm(self.norm2, x))))
        x = ops.norm(self.norm1, x + self.attention(x, mask))
        return ops.norm(self.norm2, x + self.down(ops.gelu(self.up(x))))


class Network(nn.Module):
    """Base: sets the operations of all blocks."""

    def use(self, ops):
        for part in self.modules():
            if hasattr(part, "ops"):
                part.ops = ops
        return self


class Vit(Network):
    """Patches by a convolution, a class token, a table of positions, blocks, a head on the class token."""

    def __init__(self, norm=nn.LayerNorm, packed=True, width=12, heads=3):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 10, width))
        self.blocks = nn.ModuleList(Block(width, heads, 20, norm, True, packed) for _ in range(2))
        self.norm, self.head = norm(width), nn.Linear(width, 5)
        self.ops = Plain()

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.ops.norm(self.norm, x)[:, 0])


class TextbookVit(nn.Module):
    """The same of torch's own encoder: attention in the order (tokens, batch, features) inside."""

    def __init__(self, batch_first=True, width=12):
        super().__init__()
        self.batch_first = batch_first
        self.patches = nn.Conv2d(3, width, 4, 4)
        layer = nn.TransformerEncoderLayer(width, 3, 20, dropout=0.0, activation="gelu", batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2)
        x = x.transpose(1, 2) if self.batch_first else x.permute(2, 0, 1)
        return self.head(self.encoder(x).mean(1 if self.batch_first else 0))


class Bert(Network):
    """Embeddings of words, positions and types, blocks, a head on the first token; a mask of padding."""

    def __init__(self, norm=nn.LayerNorm, words=50, length=16, width=12, heads=3, types=True, infinite=False):
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(length, width)
        self.types = nn.Embedding(2, width) if types else None
        self.norm = norm(width)
        self.blocks = nn.ModuleList(Block(width, heads, 20, norm, False, False) for _ in range(2))
        self.head = nn.Linear(width, 5)
        self.least = -math.inf if infinite else torch.finfo(torch.float32).min
        self.ops = Plain()

    def embed(self, input_ids):
        return self.words(input_ids)

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        return self.behind(self.embed(input_ids), attention_mask, token_type_ids)

    def behind(self, x, attention_mask, token_type_ids=None):
        x = x + self.positions(torch.arange(x.shape[1], device=x.device)[None])
        if self.types is not None and token_type_ids is not None:
            x = x + self.types(token_type_ids)
        x = self.ops.norm(self.norm, x)
        keep = attention_mask[:, None, None, :].to(x.dtype)
        mask = (1 - keep) * self.least if math.isfinite(self.least) else torch.where(keep > 0, 0.0, self.least)
        for block in self.blocks:
            x = block(x, mask.to(x.dtype))
        return self.head(x[:, 0])


class Decoder(Network):
    """GPT-2: words and positions, blocks that see what stands before, logits of the next word for every token."""

    def __init__(self, norm=nn.LayerNorm, words=50, length=16, width=12, heads=3):
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads, 20, norm, True, True) for _ in range(2))
        self.norm, self.head = norm(width), nn.Linear(width, words, bias=False)
        self.ops = Plain()

    def embed(self, input_ids):
        return self.words(input_ids)

    def forward(self, input_ids):
        return self.behind(self.embed(input_ids))

    def behind(self, x):
        tokens = x.shape[1]
        x = x + self.positions(torch.arange(tokens, device=x.device)[None])
        mask = torch.full((tokens, tokens), -math.inf, dtype=x.dtype).triu(1)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.ops.norm(self.norm, x))[:, -1]


def relevance(network, x, target, taylor=True, function=None):
    """Return (logits, relevance of x) in float64: x times the gradient of a class's logit, (batch, *shape)."""
    x = x.detach().double().requires_grad_()
    run = network.use(Relevance(taylor)) if function is None else function
    logits = run(x)
    gradient = torch.autograd.grad(logits[:, target].sum(), x)[0]
    network.use(Plain())
    return logits.detach().numpy(), (x * gradient).detach().numpy()
