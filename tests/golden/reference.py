# SPDX-License-Identifier: MIT
"""The transformer block in plain torch float64, written from the formulas and from nothing else.

arch_of(config)            config.json (as a dict, any spelling) -> Arch
weights_of(config, state)  tensors as a checkpoint names them -> TransformerLens keys, float64
forward(arch, w, ids)      one sequence -> every hook of HookedTransformer by its name, without the batch dimension
process(arch, w, flags)    fold_ln, center_writing_weights, center_unembed, fold_value_biases

It is slow and has no options: it exists to be compared with. make_models.py compares it with Hugging Face
transformers and with TransformerLens, and writes what it gives into the golden files.
"""
import math
from dataclasses import dataclass, field

import torch

F64 = torch.float64


@dataclass
class Arch:
    d: int
    L: int
    H: int
    Hk: int
    dh: int
    m: int
    V: int
    n_ctx: int
    norm: str = "layer"           # none | layer | rms | rms1 (multiplies by 1 + w) | layer_pre (no w, b)
    final_norm: str = "layer"     # the same, and rms_pre
    eps: float = 1e-5
    emb_scale: float = 1.0
    pos: str = "learned"          # none | learned | shortformer | rope
    rope_dim: int = 0
    inv_freq: list = field(default_factory=list)     # per layer, [rope_dim / 2]
    attn_scale: list = field(default_factory=list)   # per layer; multiplies q.k
    window: list = field(default_factory=list)       # per layer; 0: all keys up to the query
    attn_softcap: float = 0.0
    final_softcap: float = 0.0
    parallel: bool = False
    post_norms: bool = False
    qk_norm: str = "none"
    act: str = "gelu_new"
    gated: bool = False
    has_mlp: bool = True
    causal: bool = True
    family: str = ""
    rope: dict = field(default_factory=dict)         # what the frequencies were made from


# ---- config.json -> Arch ------------------------------------------------------------------------------------------

def rope_frequencies(dim, theta, scaling):
    """inv_freq [dim / 2] for rope_type default, linear or llama3."""
    f = [theta ** (-2.0 * i / dim) for i in range(dim // 2)]
    kind = (scaling or {}).get("rope_type", (scaling or {}).get("type", "default"))
    if kind in (None, "default"):
        return f
    factor = scaling["factor"]
    if kind == "linear":
        return [x / factor for x in f]
    if kind != "llama3":
        raise ValueError(f"rope type {kind}")
    low, high, orig = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["original_max_position_embeddings"]
    out = []
    for x in f:
        wave = 2 * math.pi / x
        if wave < orig / high:
            out.append(x)
        elif wave > orig / low:
            out.append(x / factor)
        else:
            s = (orig / wave - low) / (high - low)
            out.append((1 - s) * x / factor + s * x)
    return out


def _rope_of(c, default_theta=10000.0):
    """(theta, scaling) of a config with one rotary table, in the old or the new spelling."""
    new = c.get("rope_parameters") or {}
    theta = new.get("rope_theta", c.get("rope_theta", c.get("rotary_emb_base", default_theta)))
    return float(theta), (new if new else c.get("rope_scaling") or {})


def arch_of(c):
    kind = c["model_type"]
    if kind == "transformer_lens":
        return _arch_tl(c)
    if kind == "gemma3" and "text_config" in c:
        c = dict(c["text_config"], model_type="gemma3_text")
        kind = "gemma3_text"
    if kind == "gpt2":
        d, L, H = c["n_embd"], c["n_layer"], c["n_head"]
        scale = (d // H) ** -0.5 if c.get("scale_attn_weights", True) else 1.0
        by_layer = c.get("scale_attn_by_inverse_layer_idx", False)
        return Arch(d, L, H, H, d // H, c.get("n_inner") or 4 * d, c["vocab_size"], c["n_positions"],
                    eps=c["layer_norm_epsilon"], attn_scale=[scale / (l + 1 if by_layer else 1) for l in range(L)],
                    window=[0] * L, act=c["activation_function"], family=kind)
    if kind == "gpt_neo":
        d, L, H = c["hidden_size"], c["num_layers"], c["num_heads"]
        layers = [t for types, n in c["attention_types"] for _ in range(n) for t in types]
        return Arch(d, L, H, H, d // H, c.get("intermediate_size") or 4 * d, c["vocab_size"],
                    c["max_position_embeddings"], eps=c["layer_norm_epsilon"], attn_scale=[1.0] * L,
                    window=[c["window_size"] if t == "local" else 0 for t in layers], act=c["activation_function"],
                    family=kind)
    d, L, H = c["hidden_size"], c["num_hidden_layers"], c["num_attention_heads"]
    if kind == "gpt_neox":
        theta, rope = _rope_of(c)
        pct = rope.get("partial_rotary_factor", c.get("partial_rotary_factor", c.get("rotary_pct", 0.25)))
        dim = int(d // H * pct)
        return Arch(d, L, H, H, d // H, c["intermediate_size"], c["vocab_size"], c["max_position_embeddings"],
                    eps=c["layer_norm_eps"], pos="rope", rope_dim=dim,
                    inv_freq=[rope_frequencies(dim, theta, rope)] * L, attn_scale=[(d // H) ** -0.5] * L,
                    window=[0] * L, parallel=c.get("use_parallel_residual", True), act=c["hidden_act"], family=kind,
                    rope=dict(rope, rope_theta=theta))
    return _arch_llama_like(kind, c, d, L, H)


def _arch_llama_like(kind, c, d, L, H):
    gemma = kind.startswith("gemma")
    dh = c.get("head_dim") or d // H
    theta, rope = _rope_of(c)
    freq = [rope_frequencies(dh, theta, rope)] * L
    window = [0] * L
    types = c.get("layer_types")
    if kind == "mistral" and c.get("sliding_window"):
        window = [c["sliding_window"]] * L
    elif kind in ("qwen2", "qwen3") and c.get("use_sliding_window"):
        local = [t == "sliding_attention" for t in types] if types else [l >= c["max_window_layers"] for l in range(L)]
        window = [c["sliding_window"] if x else 0 for x in local]
    elif kind == "gemma2":
        local = [t == "sliding_attention" for t in types] if types else [l % 2 == 0 for l in range(L)]
        window = [c["sliding_window"] if x else 0 for x in local]
    elif kind == "gemma3_text":
        n = c.get("sliding_window_pattern", c.get("_sliding_window_pattern", 6))
        local = [t == "sliding_attention" for t in types] if types else [(l + 1) % n != 0 for l in range(L)]
        window = [c["sliding_window"] if x else 0 for x in local]
        new = c.get("rope_parameters") or {}
        near, far = new.get("sliding_attention", {}), new.get("full_attention", c.get("rope_scaling") or {})
        far = dict(far, rope_theta=far.get("rope_theta", c.get("rope_theta", 1e6)))
        near = dict(near, rope_theta=near.get("rope_theta", c.get("rope_local_base_freq", 1e4)))
        freq = [rope_frequencies(dh, r["rope_theta"], r) for r in (near if x else far for x in local)]
        rope = {"near": near, "far": far}
    scalar = c.get("query_pre_attn_scalar", dh) if kind in ("gemma2", "gemma3_text") else dh
    act = (c.get("hidden_activation") or "gelu_pytorch_tanh") if gemma else c["hidden_act"]
    return Arch(d, L, H, c.get("num_key_value_heads") or H, dh, c["intermediate_size"], c["vocab_size"],
                c["max_position_embeddings"], norm="rms1" if gemma else "rms", final_norm="rms1" if gemma else "rms",
                eps=c["rms_norm_eps"], emb_scale=d**0.5 if gemma else 1.0, pos="rope", rope_dim=dh, inv_freq=freq,
                attn_scale=[scalar**-0.5] * L, window=window,
                attn_softcap=(c.get("attn_logit_softcapping") or 0.0) if kind == "gemma2" else 0.0,
                final_softcap=(c.get("final_logit_softcapping") or 0.0) if gemma else 0.0,
                post_norms=kind in ("gemma2", "gemma3_text"),
                qk_norm={"qwen3": "rms", "gemma3_text": "rms1"}.get(kind, "none"), act=act, gated=True, family=kind,
                rope=dict(rope, rope_theta=theta))


def _arch_tl(c):
    L, dh = c["n_layers"], c["d_head"]
    norm = {None: "none", "LN": "layer", "LNPre": "layer_pre", "RMS": "rms", "RMSPre": "rms_pre"}
    block = norm[c["normalization_type"]]
    final = {"layer": "rms", "layer_pre": "rms_pre"}.get(block, block) if c.get("final_rms") else block
    pos = {"standard": "learned", "shortformer": "shortformer", "none": "none"}[c["positional_embedding_type"]]
    return Arch(c["d_model"], L, c["n_heads"], c["n_heads"], dh, c.get("d_mlp") or 0, c["d_vocab"], c["n_ctx"],
                norm=block, final_norm=final, eps=c.get("eps", 1e-5), pos=pos, attn_scale=[dh**-0.5] * L,
                window=[0] * L, act=c.get("act_fn") or "", has_mlp=not c.get("attn_only", False),
                causal=c.get("attention_dir", "causal") == "causal", family="transformer_lens")


# ---- checkpoint names -> TransformerLens keys ---------------------------------------------------------------------

def weights_of(c, state):
    a = arch_of(c)
    s = {k: v.to(F64) for k, v in state.items() if v.is_floating_point()}
    if a.family == "transformer_lens":
        return a, s
    for prefix in ("language_model.model.", "model.language_model."):
        s = {("model." + k[len(prefix):] if k.startswith(prefix) else k): v for k, v in s.items()}
    w = {"gpt2": _gpt2, "gpt_neo": _gpt_neo, "gpt_neox": _gpt_neox}.get(a.family, _llama_like)(a, s)
    return a, w


def _heads_in(W, n):   # [n * dh, d] as nn.Linear has it -> [n, d, dh]
    return W.reshape(n, -1, W.shape[-1]).transpose(1, 2)


def _heads_out(W, n):  # [d, n * dh] -> [n, dh, d]
    return W.T.reshape(n, -1, W.shape[0])


def _norm_pair(w, s, ours, theirs):
    w[ours + ".w"] = s[theirs + ".weight"]
    if theirs + ".bias" in s:
        w[ours + ".b"] = s[theirs + ".bias"]


def _gpt2(a, s):
    s = {k.removeprefix("transformer."): v for k, v in s.items()}
    w = {"embed.W_E": s["wte.weight"], "pos_embed.W_pos": s["wpe.weight"],
         "unembed.W_U": s.get("lm_head.weight", s["wte.weight"]).T}
    for l in range(a.L):
        h, b = f"h.{l}.", f"blocks.{l}."
        _norm_pair(w, s, b + "ln1", h + "ln_1")
        _norm_pair(w, s, b + "ln2", h + "ln_2")
        W, bias = s[h + "attn.c_attn.weight"].chunk(3, 1), s[h + "attn.c_attn.bias"].chunk(3)
        for i, x in enumerate("QKV"):
            w[b + "attn.W_" + x] = _heads_in(W[i].T, a.H)
            w[b + "attn.b_" + x] = bias[i].reshape(a.H, a.dh)
        w[b + "attn.W_O"] = s[h + "attn.c_proj.weight"].reshape(a.H, a.dh, a.d)
        w[b + "attn.b_O"] = s[h + "attn.c_proj.bias"]
        w[b + "mlp.W_in"], w[b + "mlp.b_in"] = s[h + "mlp.c_fc.weight"], s[h + "mlp.c_fc.bias"]
        w[b + "mlp.W_out"], w[b + "mlp.b_out"] = s[h + "mlp.c_proj.weight"], s[h + "mlp.c_proj.bias"]
    _norm_pair(w, s, "ln_final", "ln_f")
    return w


def _gpt_neo(a, s):
    s = {k.removeprefix("transformer."): v for k, v in s.items()}
    w = {"embed.W_E": s["wte.weight"], "pos_embed.W_pos": s["wpe.weight"],
         "unembed.W_U": s.get("lm_head.weight", s["wte.weight"]).T}
    for l in range(a.L):
        h, b = f"h.{l}.", f"blocks.{l}."
        _norm_pair(w, s, b + "ln1", h + "ln_1")
        _norm_pair(w, s, b + "ln2", h + "ln_2")
        for x in "QKV":
            w[b + "attn.W_" + x] = _heads_in(s[f"{h}attn.attention.{x.lower()}_proj.weight"], a.H)
        w[b + "attn.W_O"] = _heads_out(s[h + "attn.attention.out_proj.weight"], a.H)
        w[b + "attn.b_O"] = s[h + "attn.attention.out_proj.bias"]
        w[b + "mlp.W_in"], w[b + "mlp.b_in"] = s[h + "mlp.c_fc.weight"].T, s[h + "mlp.c_fc.bias"]
        w[b + "mlp.W_out"], w[b + "mlp.b_out"] = s[h + "mlp.c_proj.weight"].T, s[h + "mlp.c_proj.bias"]
    _norm_pair(w, s, "ln_final", "ln_f")
    return w


def _gpt_neox(a, s):
    head = s.get("embed_out.weight", s.get("lm_head.weight", s["gpt_neox.embed_in.weight"]))
    w = {"embed.W_E": s["gpt_neox.embed_in.weight"], "unembed.W_U": head.T}
    for l in range(a.L):
        h, b = f"gpt_neox.layers.{l}.", f"blocks.{l}."
        _norm_pair(w, s, b + "ln1", h + "input_layernorm")
        _norm_pair(w, s, b + "ln2", h + "post_attention_layernorm")
        W = s[h + "attention.query_key_value.weight"].reshape(a.H, 3, a.dh, a.d)
        bias = s[h + "attention.query_key_value.bias"].reshape(a.H, 3, a.dh)
        for i, x in enumerate("QKV"):
            w[b + "attn.W_" + x] = W[:, i].transpose(1, 2)
            w[b + "attn.b_" + x] = bias[:, i]
        w[b + "attn.W_O"] = _heads_out(s[h + "attention.dense.weight"], a.H)
        w[b + "attn.b_O"] = s[h + "attention.dense.bias"]
        w[b + "mlp.W_in"], w[b + "mlp.b_in"] = s[h + "mlp.dense_h_to_4h.weight"].T, s[h + "mlp.dense_h_to_4h.bias"]
        w[b + "mlp.W_out"], w[b + "mlp.b_out"] = s[h + "mlp.dense_4h_to_h.weight"].T, s[h + "mlp.dense_4h_to_h.bias"]
    _norm_pair(w, s, "ln_final", "gpt_neox.final_layer_norm")
    return w


def _llama_like(a, s):
    E = s["model.embed_tokens.weight"]
    w = {"embed.W_E": E, "unembed.W_U": s.get("lm_head.weight", E).T}
    for l in range(a.L):
        h, b = f"model.layers.{l}.", f"blocks.{l}."
        _norm_pair(w, s, b + "ln1", h + "input_layernorm")
        if a.post_norms:
            _norm_pair(w, s, b + "ln1_post", h + "post_attention_layernorm")
            _norm_pair(w, s, b + "ln2", h + "pre_feedforward_layernorm")
            _norm_pair(w, s, b + "ln2_post", h + "post_feedforward_layernorm")
        else:
            _norm_pair(w, s, b + "ln2", h + "post_attention_layernorm")
        for x, n in (("Q", a.H), ("K", a.Hk), ("V", a.Hk)):
            p = f"{h}self_attn.{x.lower()}_proj."
            w[b + "attn.W_" + x] = _heads_in(s[p + "weight"], n)
            if p + "bias" in s:
                w[b + "attn.b_" + x] = s[p + "bias"].reshape(n, a.dh)
        w[b + "attn.W_O"] = _heads_out(s[h + "self_attn.o_proj.weight"], a.H)
        if h + "self_attn.o_proj.bias" in s:
            w[b + "attn.b_O"] = s[h + "self_attn.o_proj.bias"]
        if a.qk_norm != "none":
            _norm_pair(w, s, b + "attn.q_norm", h + "self_attn.q_norm")
            _norm_pair(w, s, b + "attn.k_norm", h + "self_attn.k_norm")
        for ours, theirs in (("gate", "gate"), ("in", "up"), ("out", "down")):
            w[f"{b}mlp.W_{ours}"] = s[f"{h}mlp.{theirs}_proj.weight"].T
            if f"{h}mlp.{theirs}_proj.bias" in s:
                w[f"{b}mlp.b_{ours}_proj"] = s[f"{h}mlp.{theirs}_proj.bias"]
    _norm_pair(w, s, "ln_final", "model.norm")
    return w


# ---- the forward pass ---------------------------------------------------------------------------------------------

def activation(kind, x):
    if kind in ("gelu_new", "gelu_pytorch_tanh"):
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    if kind == "gelu":
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    if kind == "silu":
        return x / (1 + torch.exp(-x))
    if kind == "relu":
        return torch.where(x > 0, x, torch.zeros_like(x))
    if kind in ("solu", "solu_ln"):
        e = torch.exp(x - x.max(-1, keepdim=True).values)
        return x * e / e.sum(-1, keepdim=True)
    raise ValueError(f"activation {kind}")


def _normalise(a, out, w, name, kind, x):
    if kind == "none":
        return x
    if kind.startswith("layer"):
        x = x - x.mean(-1, keepdim=True)
    scale = torch.sqrt((x * x).mean(-1, keepdim=True) + a.eps)
    out[name + ".hook_scale"] = scale
    x = x / scale
    out[name + ".hook_normalized"] = x
    if kind.endswith("_pre"):
        return x
    gamma = w[name + ".w"]
    x = x * (1 + gamma if kind == "rms1" else gamma)
    return x + w[name + ".b"] if kind == "layer" else x


def _rotate(a, x, inv_freq):  # x [P, n, dh]
    angle = torch.arange(x.shape[0], dtype=F64)[:, None] * torch.tensor(inv_freq, dtype=F64)
    c, s, r = torch.cos(angle)[:, None], torch.sin(angle)[:, None], a.rope_dim // 2
    x0, x1 = x[..., :r], x[..., r:2 * r]
    return torch.cat([x0 * c - x1 * s, x1 * c + x0 * s, x[..., 2 * r:]], -1)


def _attention(a, w, out, l, resid, pos):
    b = f"blocks.{l}."
    h = _normalise(a, out, w, b + "ln1", a.norm, resid)
    with_pos = h + pos if a.pos == "shortformer" else h
    P = h.shape[0]

    def project(x, what):
        y = torch.einsum("pd,hde->phe", x, w[b + "attn.W_" + what])
        y = y + w.get(b + "attn.b_" + what, 0.0)
        out[b + "attn.hook_" + what.lower()] = y
        return y

    q, k, v = project(with_pos, "Q"), project(with_pos, "K"), project(h, "V")
    if a.qk_norm != "none":
        q = _normalise(a, out, w, b + "attn.q_norm", a.qk_norm, q)
        k = _normalise(a, out, w, b + "attn.k_norm", a.qk_norm, k)
    if a.pos == "rope":
        q, k = _rotate(a, q, a.inv_freq[l]), _rotate(a, k, a.inv_freq[l])
        out[b + "attn.hook_rot_q"], out[b + "attn.hook_rot_k"] = q, k
    each = a.H // a.Hk
    k, v = k.repeat_interleave(each, 1), v.repeat_interleave(each, 1)
    scores = torch.einsum("ihe,jhe->hij", q, k) * a.attn_scale[l]
    if a.attn_softcap:
        scores = a.attn_softcap * torch.tanh(scores / a.attn_softcap)
    i, j = torch.arange(P)[:, None], torch.arange(P)[None]
    if a.causal:
        allowed = j <= i
        if a.window[l]:
            allowed = allowed & (i - j < a.window[l])
        scores = scores.masked_fill(~allowed, -math.inf)
    out[b + "attn.hook_attn_scores"] = scores
    e = torch.exp(scores - scores.max(-1, keepdim=True).values)
    pattern = e / e.sum(-1, keepdim=True)
    out[b + "attn.hook_pattern"] = pattern
    z = torch.einsum("hij,jhe->ihe", pattern, v)
    out[b + "attn.hook_z"] = z
    result = torch.einsum("phe,hed->phd", z, w[b + "attn.W_O"])
    out[b + "attn.hook_result"] = result
    y = result.sum(1) + w.get(b + "attn.b_O", 0.0)
    if a.post_norms:
        y = _normalise(a, out, w, b + "ln1_post", a.norm, y)
    out[b + "hook_attn_out"] = y
    return y


def _mlp(a, w, out, l, resid):
    b = f"blocks.{l}."
    h = _normalise(a, out, w, b + "ln2", a.norm, resid)
    if a.gated:
        pre = h @ w[b + "mlp.W_gate"] + w.get(b + "mlp.b_gate_proj", 0.0)
        up = h @ w[b + "mlp.W_in"] + w.get(b + "mlp.b_in_proj", 0.0)
        out[b + "mlp.hook_pre_linear"] = up
        post = activation(a.act, pre) * up
        bias = w.get(b + "mlp.b_out_proj", 0.0)
    else:
        pre = h @ w[b + "mlp.W_in"] + w[b + "mlp.b_in"]
        post = activation(a.act, pre)
        if a.act == "solu_ln":
            out[b + "mlp.hook_mid"] = post
            post = _normalise(a, out, w, b + "mlp.ln", a.norm, post)
        bias = w[b + "mlp.b_out"]
    out[b + "mlp.hook_pre"], out[b + "mlp.hook_post"] = pre, post
    y = post @ w[b + "mlp.W_out"] + bias
    if a.post_norms:
        y = _normalise(a, out, w, b + "ln2_post", a.norm, y)
    out[b + "hook_mlp_out"] = y
    return y


def forward(a, w, ids):
    """ids: a list of P tokens. Returns {hook name: tensor}, "logits" among them; attn.hook_result as well."""
    out = {}
    x = w["embed.W_E"][torch.as_tensor(ids, dtype=torch.long)] * a.emb_scale
    out["hook_embed"] = x
    pos = None
    if a.pos in ("learned", "shortformer"):
        pos = w["pos_embed.W_pos"][: x.shape[0]]
        out["hook_pos_embed"] = pos
        if a.pos == "learned":
            x = x + pos
    for l in range(a.L):
        b = f"blocks.{l}."
        out[b + "hook_resid_pre"] = x
        y = _attention(a, w, out, l, x, pos)
        if not a.has_mlp:
            x = x + y
        elif a.parallel:
            x = x + y + _mlp(a, w, out, l, x)
        else:
            x = x + y
            out[b + "hook_resid_mid"] = x
            x = x + _mlp(a, w, out, l, x)
        out[b + "hook_resid_post"] = x
    x = _normalise(a, out, w, "ln_final", a.final_norm, x)
    out["unembed.hook_in"] = x
    logits = x @ w["unembed.W_U"] + w.get("unembed.b_U", 0.0)
    out["unembed.hook_out"] = logits   # before the soft cap
    if a.final_softcap:
        logits = a.final_softcap * torch.tanh(logits / a.final_softcap)
    out["logits"] = logits
    return out


# ---- weight processing --------------------------------------------------------------------------------------------

def process(a, w, flags):
    """A copy of the weights after the flags, in this order; models without gated biases, post-norms or tied writers."""
    w = dict(w)
    layer = a.norm == "layer"
    if "fold_ln" in flags:
        for l in range(a.L):
            b = f"blocks.{l}."
            for x in "QKV":
                _fold(w, b + "ln1", b + "attn.W_" + x, b + "attn.b_" + x, layer)
            for x in ("gate", "in") if a.gated else ("in",):
                _fold(w, b + "ln2", f"{b}mlp.W_{x}", f"{b}mlp.b_{x}" + ("_proj" if a.gated else ""), layer)
            for n in ("ln1", "ln2"):
                _unit(w, b + n)
        _fold(w, "ln_final", "unembed.W_U", "unembed.b_U", layer)
        _unit(w, "ln_final")
    if "center_writing_weights" in flags:
        assert layer
        for k in list(w):
            if k.split(".")[-1] in ("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out"):
                w[k] = w[k] - w[k].mean(-1, keepdim=True)
    if "center_unembed" in flags:
        w["unembed.W_U"] = w["unembed.W_U"] - w["unembed.W_U"].mean(-1, keepdim=True)
        if "unembed.b_U" in w:
            w["unembed.b_U"] = w["unembed.b_U"] - w["unembed.b_U"].mean()
    if "fold_value_biases" in flags:
        for l in range(a.L):
            p = f"blocks.{l}.attn."
            if p + "b_V" in w:
                b_V = w[p + "b_V"].repeat_interleave(a.H // a.Hk, 0)
                w[p + "b_O"] = w.get(p + "b_O", 0.0) + torch.einsum("he,hed->d", b_V, w[p + "W_O"])
                w[p + "b_V"] = torch.zeros_like(w[p + "b_V"])
    return w


def _fold(w, norm, matrix, bias, layer):
    """W' = diag(gamma) W, b' = b + beta W; then, for LayerNorm, W' loses its mean over d_model."""
    W, gamma = w[matrix], w[norm + ".w"]
    if layer:
        w[bias] = w.get(bias, 0.0) + torch.einsum("d,...de->...e", w[norm + ".b"], W)
    W = W * gamma[:, None]
    w[matrix] = W - W.mean(-2, keepdim=True) if layer else W


def _unit(w, norm):
    w[norm + ".w"] = torch.ones_like(w[norm + ".w"])
    if norm + ".b" in w:
        w[norm + ".b"] = torch.zeros_like(w[norm + ".b"])
