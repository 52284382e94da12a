# SPDX-License-Identifier: MIT
"""The same models in other spellings, precisions, file formats and after weight processing (see make_models.py)."""
import copy
import json

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file

import make_models as mm
import reference
from reference import F64


# ---- config.json as it was written before transformers 5 -----------------------------------------------------------

def old_spelling(c):
    """config.json with the keys that older files have."""
    c = copy.deepcopy(c)
    c.pop("layer_types", None)
    c["torch_dtype"] = c.pop("dtype")
    c["transformers_version"] = "4.44.0"
    rope = c.pop("rope_parameters", None)
    kind = c["model_type"]
    if kind == "gpt_neox":
        c.update(rotary_emb_base=int(rope["rope_theta"]), rotary_pct=rope["partial_rotary_factor"])
    elif kind == "gemma3_text":
        far = rope["full_attention"]
        c.update(sliding_window_pattern=3, rope_theta=far["rope_theta"],
                 rope_local_base_freq=rope["sliding_attention"]["rope_theta"],
                 rope_scaling={"rope_type": far["rope_type"], "factor": far["factor"]})
    elif rope:
        theta = rope.pop("rope_theta")
        c["rope_theta"] = theta
        if rope["rope_type"] == "default":
            c["rope_scaling"] = None
        else:
            if rope["rope_type"] == "linear":
                rope["type"] = rope.pop("rope_type")
            c["rope_scaling"] = rope
    if kind == "gpt2":
        c["n_ctx"] = c["n_positions"]
    if kind == "gpt_neo":
        c.pop("attention_layers")
    if kind == "gemma":
        c.update(hidden_act="gelu", hidden_activation=None)
    return c


OLD = ["gpt2", "gpt_neo", "gpt_neox", "gpt_neox_serial", "llama", "llama3", "llama_linear_rope", "mistral", "qwen2_window",
       "gemma", "gemma2", "gemma3"]


def old_config(name, listing):
    from transformers import AutoConfig
    config, state = mm.read_model(mm.HERE / name)
    old = old_spelling(config)
    d = mm.fresh(name + "_oldconfig")
    (d / "config.json").write_text(json.dumps(old, indent=2) + "\n")
    ids = load_file(str(mm.HERE / name / "reference.safetensors"))["ids"].tolist()
    want = reference.forward(*reference.weights_of(config, state), ids[0])
    mm.agree(d.name, "reference, new config", reference.forward(*reference.weights_of(old, state), ids[0]), want, 0.0)
    hf_config = AutoConfig.from_pretrained(str(d))
    mm.agree(d.name, "transformers float64", want, mm.hf_run(mm.hf_model(hf_config, named(hf_config, state), F64), ids[0]),
             mm.BAR_F64)
    listing[d.name] = {"weights_of": name, "reference_of": name, "config": d.name + "/config.json"}


def named(hf_config, state):
    """A checkpoint's tensors under the names that the modules have in this version."""
    renamed = {k.replace("embed_out.", "lm_head."): v for k, v in state.items()}
    return {k: renamed[k] for k, _ in mm.hf_model(hf_config, None, torch.float32).named_parameters()}


# ---- other files with the same numbers ------------------------------------------------------------------------------

def sharded(listing):
    hf_config, _, _, gain = mm.hf_config_of("llama")
    d = mm.fresh("llama_sharded")
    config, state = mm.save_hf(d, hf_config, mm.parameters_of("llama", hf_config, gain), shard="40KB")
    whole = mm.read_model(mm.HERE / "llama")[1]
    assert set(state) == set(whole) and all(torch.equal(state[k], whole[k]) for k in whole)
    assert len(list(d.glob("*.safetensors"))) == 3
    listing["llama_sharded"] = {"weights_of": "llama_sharded", "reference_of": "llama"}


def half(source, name, dtype):
    """Weights rounded to dtype; the reference computes with the rounded values."""
    hf_config, P, n_seq, gain = mm.hf_config_of(source)
    parameters = {k: v.to(dtype) for k, v in mm.parameters_of(source, hf_config, gain).items()}
    d = mm.fresh(name)
    config, state = mm.save_hf(d, hf_config, parameters, dtype=dtype)
    assert all(v.dtype is dtype for v in state.values())
    ids = mm.draw_ids(name, hf_config.vocab_size, n_seq, P)
    a, w, runs = mm.run_all(name, config, state, ids)
    mm.check_hf(name, a, runs, ids, hf_config, parameters)
    mm.write_reference(d / "reference.safetensors", a, runs, ids, few=True)


def hub_gpt2(listing):
    """gpt2_inverse_layer as openai-community/gpt2 is stored: no "transformer." prefix, and the causal masks beside."""
    f = mm.HERE / "gpt2_inverse_layer" / "model.safetensors"
    state = {k.removeprefix("transformer."): v for k, v in load_file(str(f)).items()}
    for l in range(3):
        state[f"h.{l}.attn.bias"] = torch.tril(torch.ones(1, 1, 31, 31))
        state[f"h.{l}.attn.masked_bias"] = torch.tensor(-1e4)
    config = mm.read_model(f.parent)[0]
    ids = load_file(str(f.parent / "reference.safetensors"))["ids"].tolist()
    before = reference.forward(*reference.weights_of(config, load_file(str(f))), ids[0])
    save_file(state, str(f), metadata={"format": "pt"})
    mm.agree("gpt2_inverse_layer", "reference, hub names",
             reference.forward(*reference.weights_of(config, mm.read_model(f.parent)[1]), ids[0]), before, 0.0)


def multimodal(listing):
    """gemma3 inside the config and the names of a multimodal checkpoint."""
    config, state = mm.read_model(mm.HERE / "gemma3")
    d = mm.fresh("gemma3_multimodal")
    outer = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "dtype": "float32",
             "text_config": dict(config, model_type="gemma3_text"), "eos_token_id": [1, 106],
             "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 12, "num_hidden_layers": 1}}
    (d / "config.json").write_text(json.dumps(outer, indent=2) + "\n")
    renamed = {"language_model." + k: v for k, v in state.items()}
    renamed["vision_tower.vision_model.post_layernorm.weight"] = torch.ones(12)
    renamed["multi_modal_projector.mm_soft_emb_norm.weight"] = torch.ones(12)
    save_file(renamed, str(d / "model.safetensors"), metadata={"format": "pt"})
    ids = load_file(str(mm.HERE / "gemma3" / "reference.safetensors"))["ids"].tolist()
    want = reference.forward(*reference.weights_of(config, state), ids[0])
    mm.agree(d.name, "reference, text only", reference.forward(*reference.weights_of(outer, renamed), ids[0]), want, 0.0)
    listing[d.name] = {"weights_of": d.name, "reference_of": "gemma3"}


def processed(name, source, flags, listing):
    config, state = mm.read_model(mm.HERE / source)
    a, w = reference.weights_of(config, state)
    w = reference.process(a, w, flags)
    ids = load_file(str(mm.HERE / source / "reference.safetensors"))["ids"].tolist()
    runs = [reference.forward(a, w, s) for s in ids]
    hf_config, _, _, gain = mm.hf_config_of(source)
    hf = mm.hf_model(hf_config, mm.parameters_of(source, hf_config, gain), F64)
    model = mm.tl_model(a, mm.tl_convert(a, hf), processing=flags)
    for s, out in zip(ids, runs):
        mm.agree(name, "TransformerLens float64", out, mm.tl_run(model, s), mm.BAR_F64)
    mm.write_reference(mm.fresh(name) / "reference.safetensors", a, runs, ids)
    listing[name] = {"weights_of": source, "reference_of": name, "processing": flags}


# ---- GGUF ---------------------------------------------------------------------------------------------------------

def _interleave(W, n_head):
    """Rows of wq, wk within each head from half-split to interleaved rotary, as llama.cpp's converter does."""
    return W.reshape(n_head, 2, W.shape[0] // n_head // 2, *W.shape[1:]).swapaxes(1, 2).reshape(W.shape)


def _gguf_tensors(a, c, s):
    """(GGUF name, numpy float32) in llama.cpp's layout."""
    s = {k: v.to(torch.float32).numpy() for k, v in s.items()}
    if a.family == "gpt2":
        s = {k.removeprefix("transformer."): v for k, v in s.items()}
        yield "token_embd.weight", s["wte.weight"]
        yield "output.weight", s["wte.weight"]
        yield "position_embd.weight", s["wpe.weight"]
        parts = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
                 "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
        for l in range(a.L):
            for theirs, ours in parts.items():
                W = s[f"h.{l}.{theirs}.weight"]
                yield f"blk.{l}.{ours}.weight", W.T if W.ndim == 2 else W
                yield f"blk.{l}.{ours}.bias", s[f"h.{l}.{theirs}.bias"]
        yield "output_norm.weight", s["ln_f.weight"]
        yield "output_norm.bias", s["ln_f.bias"]
        return
    one = 1.0 if a.family == "gemma" else 0.0
    yield "token_embd.weight", s["model.embed_tokens.weight"]
    if "lm_head.weight" in s:
        yield "output.weight", s["lm_head.weight"]
    parts = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
             "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
             "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    for l in range(a.L):
        for theirs, ours in parts.items():
            W = s[f"model.layers.{l}.{theirs}.weight"]
            if a.family == "llama" and ours in ("attn_q", "attn_k"):
                W = _interleave(W, a.H if ours == "attn_q" else a.Hk)
            yield f"blk.{l}.{ours}.weight", W + np.float32(one) if W.ndim == 1 else W
    yield "output_norm.weight", s["model.norm.weight"] + np.float32(one)
    if a.rope.get("rope_type") == "llama3":
        plain = reference.rope_frequencies(a.dh, a.rope["rope_theta"], {})
        yield "rope_freqs.weight", np.array([p / f for p, f in zip(plain, a.inv_freq[0])], np.float32)


def write_gguf(path, c, state, file_type):
    """As llama.cpp's converter writes it: vectors always in float32. Returns what a reader sees: {GGUF name: float32}."""
    a = reference.arch_of(c)
    w = gguf.GGUFWriter(str(path), a.family)
    w.add_name(path.parent.name)
    w.add_context_length(a.n_ctx)
    w.add_embedding_length(a.d)
    w.add_block_count(a.L)
    w.add_feed_forward_length(a.m)
    w.add_head_count(a.H)
    if a.family == "gpt2":
        w.add_layer_norm_eps(a.eps)
    else:
        w.add_head_count_kv(a.Hk)
        w.add_layer_norm_rms_eps(a.eps)
        if "head_dim" in c:
            w.add_key_length(a.dh)
            w.add_value_length(a.dh)
    if a.family == "llama":
        w.add_vocab_size(a.V)
        w.add_rope_dimension_count(a.dh)
        w.add_rope_freq_base(a.rope["rope_theta"])
    w.add_file_type({"F32": gguf.LlamaFileType.ALL_F32, "F16": gguf.LlamaFileType.MOSTLY_F16,
                     "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}[file_type])
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    seen = {}
    for name, x in _gguf_tensors(a, c, state):
        kind = gguf.GGMLQuantizationType[file_type] if x.ndim == 2 else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(np.ascontiguousarray(x), kind)
        seen[name] = gguf.quants.dequantize(data, kind)
        w.add_tensor(name, data, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return a, seen


def from_gguf(source, name, file_type, listing, exact=True):
    """exact: the file holds the very numbers of its source, whose reference it shares."""
    c, state = mm.read_model(mm.HERE / source)
    d = mm.fresh(name)
    a, seen = write_gguf(d / "model.gguf", c, state, file_type)
    if exact:
        for k, x in _gguf_tensors(a, c, state):
            assert np.array_equal(seen[k], x), k
    ids = load_file(str(mm.HERE / source / "reference.safetensors"))["ids"].tolist()
    if not exact:   # back through the same layout, with the rounded numbers
        rounded = {k: v.clone() for k, v in state.items()}
        for k in rounded:
            x = rounded[k].numpy()
            if x.ndim == 2:
                kind = gguf.GGMLQuantizationType[file_type]
                rounded[k] = torch.tensor(gguf.quants.dequantize(gguf.quants.quantize(x, kind), kind))
        state = rounded
        a, w, runs = mm.run_all(name, c, state, ids)
        mm.write_reference(d / "reference.safetensors", a, runs, ids, few=True)
        (d / "config.json").write_text(json.dumps(c, indent=2) + "\n")
    want = reference.forward(*reference.weights_of(c, state), ids[0])
    if a.family != "gemma":   # transformers reads llama and gpt2 files, but not these of gemma
        mm.agree(name, "transformers from GGUF", want, _hf_gguf(d, c, ids[0]), mm.BAR_F32)
    listing[name] = {"weights_of": name, "reference_of": source if exact else name}


def _hf_gguf(d, c, ids):
    from transformers import AutoConfig, AutoModelForCausalLM
    more = {k: v for k, v in c.items() if k not in ("architectures", "dtype", "transformers_version", "model_type")}
    config = AutoConfig.for_model(c["model_type"], **more)
    model = AutoModelForCausalLM.from_pretrained(str(d), gguf_file="model.gguf", config=config,
                                                 attn_implementation="eager", dtype=torch.float32)
    return mm.hf_run(model.eval(), ids)


def make_all():
    listing = {}
    hub_gpt2(listing)
    for name in OLD:
        old_config(name, listing)
    sharded(listing)
    half("gpt2", "gpt2_bf16", torch.bfloat16)
    half("llama", "llama_f16", torch.float16)
    multimodal(listing)
    processed("gpt2_processed", "gpt2", ["fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"],
              listing)
    processed("llama_fold_ln", "llama", ["fold_ln"], listing)
    from_gguf("gpt2", "gpt2_gguf", "F32", listing)
    from_gguf("llama_f16", "llama_gguf", "F16", listing)
    from_gguf("llama3", "llama3_gguf", "F32", listing)
    from_gguf("gemma", "gemma_gguf", "F32", listing)
    from_gguf("llama_q8", "llama_q8_gguf", "Q8_0", listing, exact=False)
    lines = ",\n".join(f'  "{k}": {json.dumps(v)}' for k, v in sorted(listing.items()))
    (mm.HERE / "variants.json").write_text("{\n" + lines + "\n}\n")
