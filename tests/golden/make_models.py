# SPDX-License-Identifier: MIT
"""Writes tests/golden/models: small random models of every family with reference activations.

    python make_models.py [NAME...]        (without names: all of them and the variants)

Made with torch 2.13.0, transformers 5.23.0, transformer-lens 3.9.0 (the last with HookedTransformer), safetensors 0.8.0,
gguf 0.19.0, numpy 2.4.6. Seeds are crc32("MODEL TENSOR 1") of numpy's frozen RandomState, so that the weights do not
depend on versions. References are computed in float64 by reference.py and rounded to float32. Every run asserts that
they agree with
  - Hugging Face transformers in float64 (logits, residuals, patterns; its float32 casts replaced): 1e-9,
  - Hugging Face transformers in float32, as users run it: 1e-5 (times max(1, max|reference|), as everywhere here),
  - TransformerLens' HookedTransformer in float64, every hook, weights through its own conversion: 1e-9.

models/NAME/config.json, model.safetensors (or shards)    as transformers saves them
models/NAME/reference.safetensors
    ids                    int32 [n_seq, P]
    0.<hook>               float32: every hook that HookedTransformer has by default, without the batch dimension:
                           [P, d], [P, H, dh], [P, Hk, dh], [H, P, P], scales [P, 1] and [P, H, 1] (q_norm, k_norm)
    S.<hook>               the other sequences: hook_embed, resid_mid, resid_post of every block
    S.logits               [P, V]
  attn_scores hold -inf where masked. gpt2 has attn.hook_result as well. unembed.hook_out is before the final soft cap.
  The half-precision models have only what the other sequences have.
models/variants.json       name -> {weights_of, reference_of, config (a path here), processing}: directories that lack one
                           of the files use that of another model.

TransformerLens-keyed models: config.json has model_type "transformer_lens" and, under the names of
HookedTransformerConfig: d_model, n_layers, n_heads, d_head, d_mlp (null with attn_only), n_ctx, d_vocab, d_vocab_out,
act_fn (relu, gelu = erf, gelu_new, silu, solu, solu_ln; null with attn_only), attn_only, normalization_type ("LN",
"LNPre" without weights, or null: no normalisation and no ln_final either), positional_embedding_type ("standard",
"shortformer", "none"), attention_dir ("causal", "bidirectional"), final_rms (ln_final is RMSNorm), eps. Tensors have
HookedTransformer's state_dict names and shapes (embed.W_E [V, d], blocks.L.attn.W_Q [H, d, dh], ..., unembed.W_U
[d, d_vocab_out]); a missing bias is zero.
"""
import json
import os
import pathlib
import shutil
import sys
import tempfile
import warnings

os.environ["TQDM_DISABLE"] = "1"

import torch
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

import families
import reference
from reference import F64

HERE = pathlib.Path(__file__).resolve().parent / "models"
BAR_F64, BAR_F32 = 1e-9, 1e-5
table = {}   # (model, compared with) -> (hooks compared, worst difference, where)


# ---- comparing ----------------------------------------------------------------------------------------------------

def difference(ours, theirs):
    """max|ours - theirs| / max(1, max|theirs|); infinities must be at the same places."""
    ours, theirs = ours.to(F64), theirs.to(F64)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    assert torch.equal(torch.isinf(ours), torch.isinf(theirs))
    finite = ~torch.isinf(theirs)
    if not finite.any():
        return 0.0
    return float((ours - theirs)[finite].abs().max() / max(1.0, float(theirs[finite].abs().max())))


def agree(name, against, ours, theirs, bar):
    """theirs: {hook: tensor}. Every one of them must be in ours and within the bar."""
    worst, where = max((difference(ours[k], v), k) for k, v in theirs.items())
    old = table.get((name, against), (0, -1.0, ""))
    table[name, against] = max(old, (len(theirs), worst, where), key=lambda r: r[1])
    assert worst <= bar, f"{name}: {against}: {where} differs by {worst:.3g}"


# ---- Hugging Face -------------------------------------------------------------------------------------------------

class Double(TorchFunctionMode):
    """Inside it every float32 that a modelling file asks for is float64 (softmax, norms, rotary tables, .float())."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.float:
            return args[0].double()
        wide = lambda x: F64 if x is torch.float32 else x
        return func(*[wide(x) for x in args], **{k: wide(v) for k, v in (kwargs or {}).items()})


def hf_model(config, state, dtype):
    from transformers import AutoModelForCausalLM
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        if dtype is F64:
            with Double():
                model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=F64)
        else:
            model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=dtype)
    finally:
        torch.set_default_dtype(before)
    if state is not None:
        with torch.no_grad():
            for k, p in model.named_parameters():
                p.copy_(state[k])
    return model.eval()


def hf_run(model, ids):
    """{hook: tensor}: what a plain transformers model shows: embeddings, residuals, patterns, logits."""
    out, handles = {}, []
    body = next(getattr(model, n) for n in ("transformer", "gpt_neox", "model") if hasattr(model, n))
    body = getattr(body, "language_model", body)
    layers = body.h if hasattr(body, "h") else body.layers
    parallel = getattr(model.config, "use_parallel_residual", False)

    def keep(key):
        def hook(module, args, kwargs, result=None):
            x = result if result is not None else (args[0] if args else kwargs["hidden_states"])
            out[key] = (x[0] if isinstance(x, tuple) else x)[0].detach()
        return hook

    for l, layer in enumerate(layers):
        handles.append(layer.register_forward_pre_hook(lambda m, a, k, f=keep(f"blocks.{l}.hook_resid_pre"): f(m, a, k),
                                                       with_kwargs=True))
        handles.append(layer.register_forward_hook(keep(f"blocks.{l}.hook_resid_post"), with_kwargs=True))
        mid = getattr(layer, "pre_feedforward_layernorm", None) or getattr(layer, "ln_2", None) or \
            layer.post_attention_layernorm
        if not parallel:
            handles.append(mid.register_forward_pre_hook(lambda m, a, k, f=keep(f"blocks.{l}.hook_resid_mid"): f(m, a, k),
                                                         with_kwargs=True))
    with torch.no_grad():
        run = dict(input_ids=torch.as_tensor(ids, dtype=torch.long)[None], output_attentions=True, use_cache=False)
        if next(model.parameters()).dtype is F64:
            with Double():
                result = model(**run)
        else:
            result = model(**run)
    for h in handles:
        h.remove()
    for l, p in enumerate(result.attentions):
        out[f"blocks.{l}.attn.hook_pattern"] = p[0]
    out["logits"] = result.logits[0]
    return out


# ---- TransformerLens ----------------------------------------------------------------------------------------------

def tl_kv_heads(a):
    """n_key_value_heads as TransformerLens sets it: None where every head has its own, except where it always has a number."""
    return a.Hk if a.Hk != a.H or a.family in ("mistral", "qwen2", "gemma", "gemma2", "gemma3_text") else None


def tl_model(a, state, processing=()):
    """HookedTransformer of an Arch in float64, or None where it cannot express the family."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    local = [w > 0 for w in a.window]
    rope = a.rope or {}
    more = {}
    if a.pos == "rope":
        more = dict(rotary_dim=a.rope_dim, rotary_base=rope["rope_theta"])
        kind = rope.get("rope_type", "default")
        if "near" in rope:
            more = dict(rotary_dim=a.rope_dim, rotary_base=rope["far"]["rope_theta"],
                        rotary_base_local=rope["near"]["rope_theta"], rotary_scaling_factor=rope["far"].get("factor", 1.0))
        elif kind == "linear":
            more["rotary_scaling_factor"] = rope["factor"]
        elif kind == "llama3":
            more.update(use_NTK_by_parts_rope=True, NTK_by_parts_factor=rope["factor"],
                        NTK_by_parts_low_freq_factor=rope["low_freq_factor"],
                        NTK_by_parts_high_freq_factor=rope["high_freq_factor"],
                        NTK_original_ctx_len=rope["original_max_position_embeddings"])
    if any(local):
        more.update(use_local_attn=True, window_size=max(a.window), attn_types=["local" if x else "global" for x in local])
    if a.attn_softcap:
        more["attn_scores_soft_cap"] = a.attn_softcap
    if a.final_softcap:
        more["output_logits_soft_cap"] = a.final_softcap
    if a.has_mlp:
        more.update(d_mlp=a.m, act_fn=a.act, gated_mlp=a.gated)
    norm = {"layer": "LN", "layer_pre": "LNPre", "rms": "RMS", "rms1": "RMS", "none": None}[a.norm]
    by_layer = a.L > 1 and abs(a.attn_scale[1] / a.attn_scale[0] - 0.5) < 1e-12
    cfg = HookedTransformerConfig(
        n_layers=a.L, d_model=a.d, n_ctx=a.n_ctx, d_head=a.dh, n_heads=a.H, d_vocab=a.V,
        d_vocab_out=state["unembed.W_U"].shape[1], eps=a.eps, normalization_type=norm, attn_only=not a.has_mlp,
        n_key_value_heads=tl_kv_heads(a), attn_scale=1 / a.attn_scale[0],
        scale_attn_by_inverse_layer_idx=by_layer, parallel_attn_mlp=a.parallel,
        positional_embedding_type={"learned": "standard", "rope": "rotary"}.get(a.pos, a.pos),
        attention_dir="causal" if a.causal else "bidirectional", use_normalization_before_and_after=a.post_norms,
        use_qk_norm=a.qk_norm != "none", final_rms=a.final_norm != a.norm, dtype=F64, device="cpu", init_weights=False,
        **more)
    with Double():
        model = HookedTransformer(cfg)
        every = {f: f in processing for f in ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")}
        model.load_and_process_state_dict({k: v.clone() for k, v in state.items()}, **every)
    return model.eval()


def tl_convert(a, hf):
    """TransformerLens' own conversion of a Hugging Face model (state dict), or None."""
    from types import SimpleNamespace
    from transformer_lens.pretrained.weight_conversions import gemma, gpt2, llama, mistral, neo, neox, qwen2, qwen3
    convert = {"gpt2": gpt2.convert_gpt2_weights, "gpt_neo": neo.convert_neo_weights, "gpt_neox": neox.convert_neox_weights,
               "llama": llama.convert_llama_weights, "mistral": mistral.convert_mistral_weights,
               "qwen2": qwen2.convert_qwen2_weights, "qwen3": qwen3.convert_qwen3_weights,
               "gemma": gemma.convert_gemma_weights, "gemma2": gemma.convert_gemma_weights,
               "gemma3_text": gemma.convert_gemma_weights}[a.family]
    cfg = SimpleNamespace(n_layers=a.L, d_model=a.d, n_ctx=a.n_ctx, d_head=a.dh, n_heads=a.H, d_vocab=a.V, d_mlp=a.m,
                          n_key_value_heads=tl_kv_heads(a), dtype=F64, device="cpu", load_in_4bit=False,
                          use_qk_norm=a.qk_norm != "none", use_normalization_before_and_after=a.post_norms)
    with Double(), torch.no_grad():
        return {k: v.detach() for k, v in convert(hf, cfg).items()}


def tl_run(model, ids, result=False):
    model.set_use_attn_result(result)
    with Double(), torch.no_grad():
        logits, cache = model.run_with_cache(torch.as_tensor(ids, dtype=torch.long)[None], return_type="logits")
    P = len(ids)
    out = {}
    for k, v in cache.items():
        v = v.detach()
        if ".attn.q_norm." in k or ".attn.k_norm." in k:   # TransformerLens flattens batch, position and head
            out[k] = v.reshape(P, -1, v.shape[-1])
        else:
            out[k] = v[0]
    out["logits"] = logits[0]
    return out


# ---- writing ------------------------------------------------------------------------------------------------------

def default_hooks(a, out):
    return {k: v for k, v in out.items() if not k.endswith("hook_result")}


def write_reference(path, a, runs, ids, result=False, few=False):
    t = {"ids": torch.tensor(ids, dtype=torch.int32)}
    for s, out in enumerate(runs):
        for k, v in out.items():
            main = k in ("hook_embed", "logits") or k.endswith(("resid_mid", "resid_post"))
            if (k.endswith("hook_result") and not result) or ((s > 0 or few) and not main):
                continue
            t[f"{s}.{k}"] = v.to(torch.float32).contiguous().clone()
    save_file(t, str(path))


def draw_ids(name, vocab, n_seq, P):
    ids = families.rng(name, "ids").randint(0, vocab, size=(n_seq, P))
    ids[0, 0], ids[0, 1] = 0, vocab - 1   # both ends of the vocabulary
    return ids.tolist()


def shares(a, runs):
    """How much each mechanism matters: std of the attention scores, largest mean of a pattern's row maximum, |logits|."""
    s = torch.cat([v[torch.isfinite(v)] for k, v in runs[0].items() if k.endswith("attn_scores")])
    p = torch.stack([v.max(-1).values.mean() for k, v in runs[0].items() if k.endswith("hook_pattern")])
    return f"scores {float(s.std()):.2f}  pattern max {float(p.mean()):.2f}  logits {float(runs[0]['logits'].std()):.2f}"


def run_all(name, config, state, ids):
    a, w = reference.weights_of(config, state)
    return a, w, [reference.forward(a, w, s) for s in ids]


def check_hf(name, a, runs, ids, hf_config, parameters, skip_f32=False):
    """parameters: {name in the module: tensor}. Both precisions of transformers against the reference."""
    hf = hf_model(hf_config, parameters, F64)
    for s, out in zip(ids, runs):
        agree(name, "transformers float64", out, hf_run(hf, s), BAR_F64)
    single = hf_model(hf_config, parameters, torch.float32)
    for s, out in zip(ids, runs):
        agree(name, "transformers float32", out, hf_run(single, s), BAR_F32)
    return hf


def check_tl(name, a, runs, ids, state):
    model = tl_model(a, state)
    for s, out in zip(ids, runs):
        theirs = tl_run(model, s)
        agree(name, "TransformerLens float64", out, theirs, BAR_F64)
        missing = set(default_hooks(a, out)) - set(theirs)
        assert not missing, f"{name}: TransformerLens has no {sorted(missing)}"
    agree(name, "TransformerLens result", runs[0], tl_run(model, ids[0], result=True), BAR_F64)


def fresh(name):
    d = HERE / name
    shutil.rmtree(d, ignore_errors=True)
    d.mkdir(parents=True)
    return d


def hf_config_of(name):
    import transformers
    kind, args, P, n_seq, gain = families.HF[name]
    return getattr(transformers, kind)(**args, bos_token_id=0, eos_token_id=0, pad_token_id=None), P, n_seq, gain


def parameters_of(name, hf_config, gain):
    shapes = {k: p.shape for k, p in hf_model(hf_config, None, torch.float32).named_parameters()}
    return families.draw(name, shapes, gain, gemma="gemma" in name)


def save_hf(d, hf_config, parameters, dtype=torch.float32, shard="1GB"):
    """config.json and the weights exactly as transformers writes them; returns (config, state) read back from there."""
    with tempfile.TemporaryDirectory() as tmp:
        hf_model(hf_config, parameters, torch.float32).to(dtype).save_pretrained(tmp, max_shard_size=shard)
        for f in sorted(pathlib.Path(tmp).glob("*")):
            if f.name.startswith("model") or f.name == "config.json":
                shutil.copy(f, d / f.name)
    return read_model(d)


def read_model(d):
    state = {}
    for f in sorted(d.glob("model*.safetensors")):
        state.update(load_file(str(f)))
    return json.loads((d / "config.json").read_text()), state


# ---- the models ---------------------------------------------------------------------------------------------------

NO_TL = {"llama_bias": "no biases on o_proj, gate and up in its gated block"}


def make_hf(name):
    hf_config, P, n_seq, gain = hf_config_of(name)
    parameters = parameters_of(name, hf_config, gain)
    d = fresh(name)
    config, state = save_hf(d, hf_config, parameters)
    ids = draw_ids(name, hf_config.vocab_size, n_seq, P)
    a, w, runs = run_all(name, config, state, ids)
    hf = check_hf(name, a, runs, ids, hf_config, parameters)
    if name not in NO_TL:
        check_tl(name, a, runs, ids, tl_convert(a, hf))
    write_reference(d / "reference.safetensors", a, runs, ids, result=name == "gpt2")
    print(f"{name:20} {shares(a, runs)}")


def make_tl(name):
    config, P, n_seq, gain = families.TL[name]
    a = reference.arch_of(config)
    d = fresh(name)
    (d / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    names = ("d_model", "n_layers", "n_heads", "d_head", "d_mlp", "n_ctx", "d_vocab", "d_vocab_out", "act_fn", "attn_only",
             "normalization_type", "positional_embedding_type", "attention_dir", "final_rms", "eps")
    cfg = HookedTransformerConfig(**{k: config[k] for k in names}, dtype=F64, device="cpu")
    model = HookedTransformer(cfg)   # from the same field names that the file has
    shapes = {k: p.shape for k, p in model.named_parameters()}
    state = families.draw(name, shapes, gain)
    save_file(state, str(d / "model.safetensors"), metadata={"format": "pt"})
    ids = draw_ids(name, config["d_vocab"], n_seq, P)
    a, w, runs = run_all(name, config, state, ids)
    with torch.no_grad():
        for k, p in model.named_parameters():
            p.copy_(state[k])
    for s, out in zip(ids, runs):
        theirs = tl_run(model, s)
        agree(name, "TransformerLens float64", out, theirs, BAR_F64)
        assert not set(default_hooks(a, out)) - set(theirs), name
    write_reference(d / "reference.safetensors", a, runs, ids)
    print(f"{name:20} {shares(a, runs)}")


def main():
    warnings.filterwarnings("ignore")
    import transformers
    import variants
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    wanted = sys.argv[1:]
    todo = [(n, make_hf) for n in families.HF] + [(n, make_tl) for n in families.TL]
    if not wanted:
        shutil.rmtree(HERE, ignore_errors=True)
    for name, make in todo:
        if not wanted or name in wanted:
            make(name)
    if not wanted:
        variants.make_all()
    print(f"\n{'model':20} {'compared with':26} {'hooks':>5}  worst")
    for (name, against), (n, worst, where) in table.items():
        print(f"{name:20} {against:26} {n:5}  {worst:.1e}  {where}")
    for d in sorted(HERE.glob("*/")):
        size = sum(f.stat().st_size for f in d.iterdir())
        assert size <= 300_000, f"{d.name} is {size} bytes"
        print(f"{d.name:20} {size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.modules["make_models"] = sys.modules["__main__"]   # variants.py imports this file by its name
    main()
