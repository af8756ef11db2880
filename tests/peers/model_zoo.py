"""Small models of transformers with random weights, by name: those that load from a file, and those that are refused.

``docs/which-models.md`` lists them, ``test_model_zoo.py`` tries them.
"""

from __future__ import annotations

from typing import Any

__all__ = ["LOADS", "REFUSED"]

LABELS = {"num_labels": 4}
BERT = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40,
    "max_position_embeddings": 32,
}  # fmt: skip
IMAGE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40, "image_size": 16,
    "patch_size": 4,
}  # fmt: skip
STAGES = {
    "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4],
    "mlp_ratios": [2, 2, 2, 2],
}  # fmt: skip
RELATIVE = {
    "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False, "pooler_hidden_size": 32
}  # fmt: skip
SWIN = {
    "image_size": 16, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4,
}  # fmt: skip
PERCEIVER = {
    "num_latents": 6, "d_latents": 32, "d_model": 32, "num_blocks": 1, "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4, "num_cross_attention_heads": 4,
}  # fmt: skip
BART = {
    "vocab_size": 60, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "max_position_embeddings": 32,
    "pad_token_id": 1,
}  # fmt: skip
T5 = {"vocab_size": 60, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 3}
WAVE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40, "conv_dim": [16, 16],
    "conv_stride": [4, 2], "conv_kernel": [8, 4], "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 16,
}  # fmt: skip
SMALL_GPT = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}

#: By class: configuration, settings, what it takes ("text", "image 16", ...), how near its map is to torch's in float64
#: (files hold some numbers in single precision).
LOADS: dict[str, tuple[str, dict[str, Any], str, float]] = {
    "DebertaForSequenceClassification": ("DebertaConfig", BERT | LABELS | RELATIVE | {"max_relative_positions": 16},
                                         "text", 1e-8),
    "DebertaV2ForSequenceClassification": (
        "DebertaV2Config",
        BERT | LABELS | RELATIVE | {"position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True},
        "text", 1e-8,
    ),
    "AlbertForSequenceClassification": ("AlbertConfig", BERT | LABELS | {"embedding_size": 16}, "text", 1e-9),
    "MPNetForSequenceClassification": ("MPNetConfig", BERT | LABELS, "text", 1e-9),
    "RoFormerForSequenceClassification": ("RoFormerConfig", BERT | LABELS | {"embedding_size": 32}, "text", 1e-9),
    "CamembertForTokenClassification": ("CamembertConfig", BERT | LABELS | {"pad_token_id": 1}, "text", 1e-9),
    "RemBertForSequenceClassification": (
        "RemBertConfig", BERT | LABELS | {"input_embedding_size": 16, "output_embedding_size": 16}, "text", 1e-9
    ),
    "MegatronBertForSequenceClassification": ("MegatronBertConfig", BERT | LABELS, "text", 1e-9),
    "LayoutLMForSequenceClassification": (
        "LayoutLMConfig", BERT | LABELS | {"max_2d_position_embeddings": 32}, "text", 1e-9
    ),
    "FlaubertForSequenceClassification": (
        "FlaubertConfig",
        {"vocab_size": 60, "emb_dim": 32, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 32} | LABELS,
        "text", 1e-9,
    ),
    "YosoForSequenceClassification": ("YosoConfig", BERT | LABELS | {"use_expectation": True}, "text", 1e-9),
    "CLIPTextModelWithProjection": (
        "CLIPTextConfig",
        BERT | {"projection_dim": 8, "eos_token_id": 59, "bos_token_id": 58, "pad_token_id": 1}, "text", 1e-9,
    ),
    "BloomForCausalLM": ("BloomConfig", {"vocab_size": 60, "hidden_size": 32, "n_layer": 2, "n_head": 4}, "text", 1e-7),
    "FalconForCausalLM": (
        "FalconConfig", {k: v for k, v in BERT.items() if k != "max_position_embeddings"}, "text", 1e-9
    ),
    "MptForCausalLM": (
        "MptConfig", {"vocab_size": 60, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 32}, "text", 1e-9
    ),
    "StableLmForCausalLM": ("StableLmConfig", BERT | {"num_key_value_heads": 2}, "text", 1e-9),
    "BioGptForCausalLM": ("BioGptConfig", BERT, "text", 1e-9),
    "CTRLLMHeadModel": ("CTRLConfig", SMALL_GPT | {"dff": 40}, "text", 1e-9),
    "OpenAIGPTLMHeadModel": ("OpenAIGPTConfig", SMALL_GPT, "text", 1e-9),
    "GPTJForCausalLM": ("GPTJConfig", SMALL_GPT | {"rotary_dim": 4}, "text", 1e-7),
    "CodeGenForCausalLM": ("CodeGenConfig", SMALL_GPT | {"rotary_dim": 4}, "text", 1e-7),
    "T5ForConditionalGeneration": (
        "T5Config", T5 | {"decoder_start_token_id": 0, "feed_forward_proj": "gated-gelu"}, "two texts", 1e-9
    ),
    "BartForConditionalGeneration": ("BartConfig", BART, "two texts", 1e-9),
    "MarianMTModel": ("MarianConfig", BART | {"decoder_start_token_id": 1}, "two texts", 1e-9),
    "M2M100ForConditionalGeneration": ("M2M100Config", BART, "two texts", 1e-9),
    "PegasusForConditionalGeneration": ("PegasusConfig", BART, "two texts", 1e-9),
    "WhisperForAudioClassification": (
        "WhisperConfig", BART | LABELS | {"num_mel_bins": 8, "max_source_positions": 10, "pad_token_id": 0,
                                          "classifier_proj_size": 16}, "mel", 1e-9,
    ),
    "Wav2Vec2ForSequenceClassification": ("Wav2Vec2Config", WAVE | LABELS, "wave", 1e-6),
    "WavLMForSequenceClassification": (
        "WavLMConfig", WAVE | LABELS | {"num_buckets": 16, "max_bucket_distance": 20}, "wave", 1e-6
    ),
    "HubertForSequenceClassification": ("HubertConfig", WAVE | LABELS, "wave", 1e-6),
    "ASTForAudioClassification": (
        "ASTConfig",
        {k: v for k, v in IMAGE.items() if k != "image_size"} | LABELS
        | {"max_length": 16, "num_mel_bins": 16, "frequency_stride": 4, "time_stride": 4}, "spectrum", 1e-9,
    ),
    "DeiTForImageClassification": ("DeiTConfig", IMAGE | LABELS, "image 16", 1e-9),
    "BeitForImageClassification": ("BeitConfig", IMAGE | LABELS | {"use_relative_position_bias": True}, "image 16",
                                   1e-9),
    "Data2VecVisionForImageClassification": (
        "Data2VecVisionConfig", IMAGE | LABELS | {"use_relative_position_bias": True}, "image 16", 1e-9
    ),
    "Dinov2ForImageClassification": ("Dinov2Config", IMAGE | LABELS | {"image_size": 24}, "image 16", 1e-9),
    "SiglipVisionModel": ("SiglipVisionConfig", IMAGE, "image 16", 1e-9),
    "CLIPVisionModelWithProjection": ("CLIPVisionConfig", IMAGE | {"projection_dim": 8}, "image 16", 1e-9),
    "YolosForObjectDetection": (
        "YolosConfig", IMAGE | LABELS | {"image_size": [16, 16], "num_detection_tokens": 3}, "image 16", 1e-9
    ),
    "SwinForImageClassification": ("SwinConfig", SWIN | LABELS, "image 16", 1e-9),
    "Swinv2ForImageClassification": ("Swinv2Config", SWIN | LABELS, "image 16", 1e-6),
    "LevitForImageClassification": (
        "LevitConfig",
        LABELS | {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1],
                  "key_dim": [8, 8, 8]}, "image 64", 1e-6,
    ),
    "PoolFormerForImageClassification": (
        "PoolFormerConfig",
        LABELS | {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "patch_sizes": [7, 3, 3, 3]}, "image 32",
        1e-9,
    ),
    "ConvNextForImageClassification": (
        "ConvNextConfig", LABELS | {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}, "image 32", 1e-9
    ),
    "ConvNextV2ForImageClassification": (
        "ConvNextV2Config", LABELS | {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}, "image 32", 1e-9
    ),
    "PvtForImageClassification": (
        "PvtConfig", STAGES | LABELS | {"image_size": 32, "sequence_reduction_ratios": [4, 2, 1, 1]}, "image 32", 1e-9
    ),
    "SegformerForImageClassification": ("SegformerConfig", STAGES | LABELS | {"sr_ratios": [4, 2, 1, 1]}, "image 32",
                                        1e-9),
    "MobileViTForImageClassification": (
        "MobileViTConfig",
        LABELS | {"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32],
                  "num_attention_heads": 4}, "image 64", 1e-5,
    ),
    "PerceiverForImageClassificationLearned": ("PerceiverConfig", PERCEIVER | LABELS | {"image_size": 8}, "image 8",
                                               1e-9),
    "DetrForObjectDetection": (
        "DetrConfig",
        {
            "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
            "backbone_config": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1],
                                "layer_type": "basic", "out_features": ["stage2"]},
            "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 20, "decoder_ffn_dim": 20, "num_queries": 5,
            "num_labels": 4,
        }, "image 32", 1e-6,
    ),
}  # fmt: skip
#: By class: configuration, settings, what it takes, what is in the way.
REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "FNetForSequenceClassification": (
        "FNetConfig", {k: v for k, v in BERT.items() if "heads" not in k} | LABELS, "ids", "fft"
    ),
    "MixtralForCausalLM": (
        "MixtralConfig", BERT | {"num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1}, "text",
        "TopK",
    ),
    "RwkvForCausalLM": (
        "RwkvConfig", {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "attention_hidden_size": 16}, "ids",
        "Max",
    ),
    "LongformerForSequenceClassification": ("LongformerConfig", BERT | LABELS | {"attention_window": [4, 4]}, "text",
                                            "Pad"),
    "CanineForSequenceClassification": (
        "CanineConfig",
        BERT | LABELS | {"num_hash_buckets": 60, "num_hash_functions": 2, "local_transformer_stride": 8,
                         "downsampling_rate": 4, "upsampling_kernel_size": 3, "max_position_embeddings": 64}, "text",
        "MaxPool",
    ),
}  # fmt: skip
