"""Models of transformers with random weights, as modules and as files; the map of an independent gradient (float64)."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch

import pylrp

from .exports import can_write, exported
from .gradient_rules import relevance

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
COMPOSITES = {"attnlrp": True, "cp_lrp": False}
TOKENS = 7
SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
}
GROUPED = SIZES | {"num_key_value_heads": 2, "head_dim": 8}
T5 = {"vocab_size": 60, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 3}
#: Class, configuration, settings.
MODELS = {
    "bert": ("BertForSequenceClassification", "BertConfig", SIZES | {"num_labels": 4}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {"vocab_size": 60, "n_embd": 24, "n_layer": 2, "n_head": 3}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", GROUPED),
    "t5": ("T5EncoderModel", "T5Config", T5 | {"feed_forward_proj": "gated-gelu"}),
    "vit": (
        "ViTForImageClassification",
        "ViTConfig",
        {k: v for k, v in SIZES.items() if "vocab" not in k and "position" not in k}
        | {"image_size": 16, "patch_size": 4, "num_labels": 4},
    ),
    "t5 with relu": ("T5EncoderModel", "T5Config", T5),
    "roberta": ("RobertaForSequenceClassification", "RobertaConfig", SIZES | {"num_labels": 4, "pad_token_id": 1}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GROUPED),
    "cohere": ("CohereForCausalLM", "CohereConfig", GROUPED | {"pad_token_id": 0}),
    "glm": ("GlmForCausalLM", "GlmConfig", GROUPED | {"pad_token_id": 0}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", GROUPED | {"sliding_window": 4}),
    "opt": (
        "OPTForCausalLM",
        "OPTConfig",
        {
            "vocab_size": 60,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 40,
            "max_position_embeddings": 32,
            "word_embed_proj_dim": 32,
            "pad_token_id": 0,
        },
    ),
    "gptneo": (
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {
            "vocab_size": 60,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "window_size": 4,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 32,
        },
    ),
    "neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", SIZES | {"rotary_pct": 0.5}),
    "mistral": ("MistralForCausalLM", "MistralConfig", GROUPED | {"sliding_window": 4}),
    "modernbert": (
        "ModernBertForSequenceClassification",
        "ModernBertConfig",
        SIZES
        | {
            "num_labels": 4,
            "local_attention": 4,
            "global_attn_every_n_layers": 2,
            "pad_token_id": 0,
            "reference_compile": False,
        },
    ),
    "gpt2 for classes": (
        "GPT2ForSequenceClassification",
        "GPT2Config",
        {
            "vocab_size": 60,
            "n_embd": 24,
            "n_layer": 2,
            "n_head": 3,
            "num_labels": 4,
            "pad_token_id": 0,
        },
    ),
    "llama for classes": (
        "LlamaForSequenceClassification",
        "LlamaConfig",
        GROUPED | {"num_labels": 4, "pad_token_id": 0},
    ),
    "electra": ("ElectraForSequenceClassification", "ElectraConfig", SIZES | {"num_labels": 4, "embedding_size": 16}),
    "distilbert": (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {"vocab_size": 60, "dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40, "num_labels": 4},
    ),
}
ALWAYS = {("bert", "eager"), ("gpt2", "sdpa"), ("llama", "sdpa"), ("llama", "eager"), ("t5", "eager"), ("vit", "sdpa"),
          ("gpt2 for classes", "sdpa"), ("opt", "sdpa")}  # fmt: skip


def made(name, implementation):
    """Return a model with weights that are large enough for its attention to look at something."""
    kind, config, settings = MODELS[name]
    torch.manual_seed(0)
    settings = settings if name.startswith("t5") else settings | {"attn_implementation": implementation}
    model = getattr(transformers, kind)(getattr(transformers, config)(**settings)).eval().requires_grad_(False)
    for weight in model.parameters():
        if weight.ndim == 1:
            weight.add_(0.2 * torch.randn_like(weight))
        else:
            weight.mul_(4)
    return model


def wide(model):
    """Return it in float64, with its GELU as a function of torch's."""
    found = copy.deepcopy(model).double()
    for part in found.modules():
        if type(part).__name__ in ("NewGELUActivation", "GELUTanh"):
            part.forward = lambda x: torch.nn.functional.gelu(x, approximate="tanh")
    return found


def main(returned):
    return returned.logits if "logits" in returned else returned.last_hidden_state


def batch(name):
    torch.manual_seed(1)
    if name == "vit":
        return {"pixel_values": torch.randn(2, 3, 16, 16)}
    mask = torch.ones(2, TOKENS, dtype=torch.long)
    mask[1, 5:] = 0
    ids = torch.randint(2, 60, (2, TOKENS))
    if name.endswith("for classes"):  # the last token that is no padding, by its id
        ids[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def looked_up(model, x, rows):
    """Return what a model makes of ids if its table has these rows for them."""
    table = model.get_input_embeddings()
    table.forward = lambda ids: rows
    try:
        return main(model(**x))
    finally:
        del table.forward


def expected(model, x, composite):
    """Return coefficients, prediction and relevance; of a class, at one token where there are several."""
    if "pixel_values" in x:
        rows, rest = x["pixel_values"].double(), {}
        call = lambda rows: main(model(pixel_values=rows))  # noqa: E731
    else:
        rows, rest = model.get_input_embeddings()(x["input_ids"]), {"attention_mask": x["attention_mask"]}
        call = lambda rows: main(model(inputs_embeds=rows, **rest))  # noqa: E731
        if hasattr(model, "score"):  # which looks for padding in the ids
            call = lambda rows: looked_up(model, x, rows)  # noqa: E731
    shape = call(rows).shape
    top = torch.zeros(shape).double()
    top[(slice(None), *[-2] * (len(shape) == 3), 1)] = 1
    y, R = relevance(call, rows, top, COMPOSITES[composite])
    return top.numpy(), y, R if "pixel_values" in x else R.sum(-1)


def require_agreement(net, model, x):
    given = {name: value.numpy() for name, value in x.items()}
    given = given if len(given) > 1 else next(iter(given.values()))
    for composite in COMPOSITES:
        top, y, R = expected(model, x, composite)
        ex = net.explain(given, top * y, composite=composite)
        np.testing.assert_allclose(ex.output, y, rtol=0, atol=1e-9 * np.abs(y).max())
        found = ex.relevance["input_ids"] if isinstance(ex.relevance, dict) else ex.relevance
        np.testing.assert_allclose(found, R, rtol=0, atol=1e-9 * np.abs(R).max())
        assert max(np.abs(row.rounding).max() for row in ex.ledger) <= 1e-12 * np.abs(top * y).sum()


def require_packed(net):
    """Samples of unequal length run in one call, each as alone: causal masks, biases by distance, rotations."""
    random = np.random.default_rng(0)
    listed = [{"input_ids": random.integers(3, 60, n), "attention_mask": np.ones(n, int)} for n in (5, 7, 4, 9, 7)]
    listed[1]["attention_mask"][-2:] = 0
    target = (0, 2) if len(net.graph.shapes[net.graph.outputs[0]]) > 1 else 1
    for composite in COMPOSITES:
        ex = net.explain(listed, target, composite)
        assert not any("run" in note for note in ex.notes)
        for i, sample in enumerate(listed):
            one = net.explain(sample, target, composite)
            atol = 1e-12 * max(np.abs(one.relevance).max(), np.abs(one.output).max())
            np.testing.assert_allclose(ex.relevance[i], one.relevance, rtol=0, atol=atol)
            np.testing.assert_allclose(ex.output[i], one.output, rtol=0, atol=atol)
            np.testing.assert_allclose(ex[i].ledger.data, one.ledger.data, rtol=0, atol=10 * atol)


CASES = [
    pytest.param(name, implementation, marks=() if (name, implementation) in ALWAYS else pytest.mark.nightly)
    for name in MODELS
    for implementation in ("eager", "sdpa")
    if implementation == "eager" or not name.startswith(("t5", "electra", "gptneo"))
]


@pytest.mark.parametrize(("name", "implementation"), CASES)
def test_modules(name, implementation):
    """By keyword arguments; the logits of what they return are explained, or the hidden states."""
    model, x = made(name, implementation), batch(name)
    net = pylrp.load(model, x, dtype="float64")
    assert net.graph.outputs == ("last_hidden_state" if name.startswith("t5") else "logits",)
    require_agreement(net, wide(model), x)


@pytest.mark.nightly
@pytest.mark.parametrize("way", ["torchscript 14", "dynamo 20", "dynamo 23"])
@pytest.mark.parametrize("name", [name for name in MODELS if name in ("bert", "gpt2", "llama", "t5", "vit")])
def test_files(name, way, tmp_path):
    if not can_write(way):
        pytest.skip(f"{way} needs onnxscript")
    if way == "torchscript 14" and name in ("gpt2", "llama"):
        pytest.skip("torch's older exporter fails on torch.vmap, by which these make their masks")
    model, x = made(name, "sdpa"), batch(name)

    class Call(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        if name == "vit":

            def forward(self, pixel_values):
                return main(self.model(pixel_values=pixel_values))
        else:

            def forward(self, input_ids, attention_mask):
                settings = {} if name in ("bert", "t5") else {"use_cache": False}
                return main(self.model(input_ids=input_ids, attention_mask=attention_mask, **settings))

    path = exported(Call(), x, tmp_path / "a.onnx", way, lengths=name != "vit")
    net = pylrp.load(path, dtype="float64")
    require_agreement(net, wide(model), x)
    if name != "vit":
        require_packed(net)


def test_what_is_explained():
    """Other outputs by their keys; caches never."""
    model, x = made("bert", "eager"), batch("bert")
    net = pylrp.load(model.bert, x)
    assert net.graph.outputs == ("last_hidden_state",)
    assert any("pooler_output" in note for note in net.notes)
    net = pylrp.load(model.bert, x, outputs=["pooler_output"])
    given = {name: value.numpy() for name, value in x.items()}
    assert net.graph.outputs == ("pooler_output",)
    wanted = model.bert(**x).pooler_output
    if net.top is None:
        np.testing.assert_allclose(net.forward(given), wanted, atol=1e-5)
    net = pylrp.load(made("gpt2", "sdpa"), batch("gpt2"))  # with a cache, by default
    assert net.graph.outputs == ("logits",)
