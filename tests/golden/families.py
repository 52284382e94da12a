# SPDX-License-Identifier: MIT
"""The small random models: what each is called, its config, and how its weights are drawn.

Sizes are odd on purpose: heads that do not divide by 4, head_dim != d/H, windows shorter than the text, every branch of
every scaling rule hit, soft caps that bite.
"""
import zlib

import numpy as np
import torch

# name: (config class, its arguments, P tokens per sequence, sequences, gain of W_Q and W_K)
HF = {
    "gpt2": ("GPT2Config", dict(n_embd=28, n_head=4, n_layer=3, n_inner=38, n_positions=29, vocab_size=83), 13, 3, 1.2),
    "gpt2_untied": ("GPT2Config", dict(n_embd=24, n_head=3, n_layer=2, n_positions=23, vocab_size=71,
                                       activation_function="gelu", tie_word_embeddings=False), 13, 2, 1.2),
    "gpt2_inverse_layer": ("GPT2Config", dict(n_embd=24, n_head=2, n_layer=3, n_inner=40, n_positions=31, vocab_size=61,
                                              scale_attn_by_inverse_layer_idx=True), 13, 2, 1.5),
    "gpt_neo": ("GPTNeoConfig", dict(hidden_size=28, num_heads=4, num_layers=4, intermediate_size=44, window_size=5,
                                     attention_types=[[["global", "local"], 2]], vocab_size=67,
                                     max_position_embeddings=33), 15, 2, 0.9),
    "gpt_neox": ("GPTNeoXConfig", dict(hidden_size=32, num_attention_heads=2, num_hidden_layers=3, intermediate_size=52,
                                       vocab_size=89, max_position_embeddings=40, rope_parameters=dict(
                                           rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.25)), 17, 2, 1.2),
    "gpt_neox_serial": ("GPTNeoXConfig", dict(hidden_size=36, num_attention_heads=3, num_hidden_layers=2,
                                              intermediate_size=40, vocab_size=61, max_position_embeddings=40,
                                              use_parallel_residual=False, rope_parameters=dict(
                                                  rope_type="default", rope_theta=250.0, partial_rotary_factor=0.5)), 15, 2, 1.2),
    "llama": ("LlamaConfig", dict(hidden_size=28, num_attention_heads=4, num_key_value_heads=2, head_dim=10,
                                  num_hidden_layers=3, intermediate_size=44, vocab_size=61, rms_norm_eps=1e-5,
                                  max_position_embeddings=64), 19, 2, 1.2),
    "llama3": ("LlamaConfig", dict(hidden_size=24, num_attention_heads=3, num_key_value_heads=1, num_hidden_layers=2,
                                   intermediate_size=36, vocab_size=73, rms_norm_eps=1e-5, tie_word_embeddings=True,
                                   max_position_embeddings=256, rope_parameters=dict(
                                       rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0,
                                       high_freq_factor=4.0, original_max_position_embeddings=32)), 23, 2, 1.2),
    "llama_bias": ("LlamaConfig", dict(hidden_size=24, num_attention_heads=4, num_key_value_heads=4, num_hidden_layers=2,
                                       intermediate_size=28, vocab_size=61, attention_bias=True, mlp_bias=True,
                                       max_position_embeddings=64), 13, 2, 1.2),
    "llama_linear_rope": ("LlamaConfig", dict(hidden_size=24, num_attention_heads=2, num_key_value_heads=1, head_dim=14,
                                              num_hidden_layers=2, intermediate_size=30, vocab_size=61,
                                              max_position_embeddings=64, rope_parameters=dict(
                                                  rope_type="linear", rope_theta=20000.0, factor=2.5)), 15, 2, 1.2),
    "mistral": ("MistralConfig", dict(hidden_size=24, num_attention_heads=4, num_key_value_heads=2, head_dim=10,
                                      num_hidden_layers=3, intermediate_size=34, vocab_size=61, sliding_window=5,
                                      max_position_embeddings=64), 19, 2, 1.2),
    "qwen2": ("Qwen2Config", dict(hidden_size=24, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2,
                                  intermediate_size=38, vocab_size=79, tie_word_embeddings=True,
                                  max_position_embeddings=64, rope_parameters=dict(
                                      rope_type="default", rope_theta=1000000.0)), 15, 2, 0.9),
    "qwen2_window": ("Qwen2Config", dict(hidden_size=24, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=3,
                                         intermediate_size=30, vocab_size=61, use_sliding_window=True, sliding_window=4,
                                         max_window_layers=1, max_position_embeddings=64, rope_parameters=dict(
                                             rope_type="default", rope_theta=1000000.0)), 17, 2, 0.9),
    "qwen3": ("Qwen3Config", dict(hidden_size=24, num_attention_heads=4, num_key_value_heads=2, head_dim=10,
                                  num_hidden_layers=3, intermediate_size=34, vocab_size=67, tie_word_embeddings=True,
                                  max_position_embeddings=64, rope_parameters=dict(
                                      rope_type="default", rope_theta=1000000.0)), 15, 2, 1.2),
    "gemma": ("GemmaConfig", dict(hidden_size=24, num_attention_heads=4, num_key_value_heads=1, head_dim=10,
                                  num_hidden_layers=2, intermediate_size=42, vocab_size=71,
                                  max_position_embeddings=64), 15, 2, 1.2),
    "gemma2": ("Gemma2Config", dict(hidden_size=28, num_attention_heads=4, num_key_value_heads=2, head_dim=10,
                                    num_hidden_layers=3, intermediate_size=36, vocab_size=79, sliding_window=5,
                                    query_pre_attn_scalar=7, attn_logit_softcapping=3.0, final_logit_softcapping=5.0,
                                    max_position_embeddings=64), 17, 2, 1.3),
    "gemma3": ("Gemma3TextConfig", dict(hidden_size=20, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
                                        num_hidden_layers=4, intermediate_size=30, vocab_size=73, sliding_window=5,
                                        query_pre_attn_scalar=7, max_position_embeddings=64,
                                        layer_types=["sliding_attention", "sliding_attention", "full_attention",
                                                     "sliding_attention"],
                                        rope_parameters=dict(
                                            sliding_attention=dict(rope_type="default", rope_theta=10000.0),
                                            full_attention=dict(rope_type="linear", rope_theta=1000000.0, factor=8.0))),
               15, 2, 1.2),
    "llama_q8": ("LlamaConfig", dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2,
                                     intermediate_size=64, vocab_size=61, rms_norm_eps=1e-5,
                                     max_position_embeddings=64), 13, 2, 1.2),
}

# TransformerLens models: config.json is exactly this (see make_models.py), then P, sequences, gain of W_Q and W_K.
_TL = dict(model_type="transformer_lens", positional_embedding_type="standard", normalization_type="LN", eps=1e-5,
           attention_dir="causal", attn_only=False, final_rms=False)
TL = {
    "tl_attn_only": (dict(_TL, d_model=36, n_layers=2, n_heads=4, d_head=9, d_mlp=None, n_ctx=23, d_vocab=67,
                          d_vocab_out=67, act_fn=None, attn_only=True), 17, 2, 1.2),
    "tl_shortformer": (dict(_TL, d_model=30, n_layers=2, n_heads=3, d_head=8, d_mlp=None, n_ctx=21, d_vocab=61,
                            d_vocab_out=61, act_fn=None, attn_only=True, normalization_type=None,
                            positional_embedding_type="shortformer"), 15, 2, 1.0),
    "tl_solu": (dict(_TL, d_model=28, n_layers=2, n_heads=4, d_head=7, d_mlp=38, n_ctx=19, d_vocab=61, d_vocab_out=61,
                     act_fn="solu_ln"), 13, 2, 1.2),
    "tl_gelu": (dict(_TL, d_model=26, n_layers=2, n_heads=2, d_head=13, d_mlp=42, n_ctx=19, d_vocab=63, d_vocab_out=63,
                     act_fn="gelu", final_rms=True), 13, 2, 1.2),
    "tl_pre": (dict(_TL, d_model=24, n_layers=2, n_heads=2, d_head=11, d_mlp=30, n_ctx=19, d_vocab=61, d_vocab_out=61,
                    act_fn="relu", normalization_type="LNPre"), 13, 2, 1.2),
    "tl_bidirectional": (dict(_TL, d_model=26, n_layers=3, n_heads=2, d_head=10, d_mlp=33, n_ctx=16, d_vocab=11,
                              d_vocab_out=3, act_fn="relu", attention_dir="bidirectional"), 13, 3, 1.2),
}


def rng(name, what):
    return np.random.RandomState(zlib.crc32(f"{name} {what} 1".encode()))


def draw(name, shapes, qk_gain, gemma=False):
    """Float32 tensors by name. Matrices N(0, gain^2 / fan_in), embeddings N(0, 1), norm weights 1 +- 0.3 (Gemma: 0 +-
    0.3, for it multiplies by 1 + w), biases N(0, 0.2^2), the unembedding so that logits are of order 5."""
    out = {}
    for key in sorted(shapes):
        shape = tuple(shapes[key])
        x = rng(name, key).standard_normal(shape)
        part = key.split(".")
        last, before = part[-1], part[-2]
        is_norm = any(n in before for n in ("norm", "ln")) and (len(shape) == 1 and last in ("weight", "w"))
        if is_norm:
            x = 0.3 * x + (0.0 if gemma else 1.0)
        elif len(shape) == 1 or last in ("bias", "b") or last.startswith("b_"):
            x = 0.2 * x
        elif before in ("wte", "embed_in", "embed_tokens", "embed"):
            x = x * (2.5 / np.sqrt(shape[-1]) if gemma else 1.0)
        elif before in ("wpe", "pos_embed"):
            x = 0.5 * x
        else:
            x = _matrix(x, shape, last, before, qk_gain)
        out[key] = torch.tensor(x, dtype=torch.float32)
    return out


def _matrix(x, shape, last, before, qk_gain):
    if last in ("W_Q", "W_K", "W_V"):            # [H, d, dh]
        return x * (qk_gain if last != "W_V" else 1.2) / np.sqrt(shape[1])
    if last == "W_O":                            # [H, dh, d]
        return x * 1.2 / np.sqrt(shape[0] * shape[1])
    if last in ("W_in", "W_out", "W_U"):         # [in, out]
        return x * (4.0 if last == "W_U" else 1.2) / np.sqrt(shape[0])
    if before in ("c_attn", "query_key_value"):
        return x * qk_gain / np.sqrt(min(shape))
    if before in ("lm_head", "embed_out"):
        return x * 4.0 / np.sqrt(shape[1])
    if before in ("q_proj", "k_proj"):
        return x * qk_gain / np.sqrt(shape[1])
    return x * 1.2 / np.sqrt(min(shape))
