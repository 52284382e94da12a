#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Turns four trained toy transformers into model directories (config.json + model.safetensors with TransformerLens keys).

    convert_arena.py DATA OUT [--checks] [--quick]

DATA  holds models/brackets, models/grokking, models/arena (shared/data)
OUT   gets OUT/brackets, OUT/mod_addition_113, OUT/induction_head, OUT/palindrome
Every model is run here in numpy float64 and must do what it was trained for. --checks writes the inputs and the right
answers beside each model: check.json says how to read them, so that another program can be held to the same. --quick
leaves the running out. Needs numpy and nothing else.

The config's field names are HookedTransformerConfig's; tests/golden/make_models.py states the convention.
"""
import argparse
import json
import pathlib
import struct
import sys

import numpy as np


# ---- safetensors --------------------------------------------------------------------------------------------------

def read_safetensors(path):
    raw = path.read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + n])
    meta = header.pop("__metadata__", {})
    out = {}
    for k, t in header.items():
        if t["dtype"] != "F32":
            raise SystemExit(f"{path}: {k} is {t['dtype']}, F32 was expected")
        b, e = t["data_offsets"]
        out[k] = np.frombuffer(raw[8 + n + b:8 + n + e], "<f4").reshape(t["shape"])
    return out, meta


def write_safetensors(path, tensors, meta):
    header, data, at = {"__metadata__": meta}, [], 0
    for k in sorted(tensors):
        x = np.ascontiguousarray(tensors[k], "<f4")
        header[k] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}
        data.append(x.tobytes())
        at += x.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))


def expect(path, tensors, shapes):
    """Exactly these keys with exactly these shapes, so that no tensor is misread or forgotten."""
    if set(tensors) != set(shapes):
        raise SystemExit(f"{path}: unexpected keys {sorted(set(tensors) ^ set(shapes))}")
    for k, s in shapes.items():
        if tensors[k].shape != s:
            raise SystemExit(f"{path}: {k} has shape {tensors[k].shape}, {s} was expected")


# ---- the four models ----------------------------------------------------------------------------------------------

def config(**fields):
    return dict(dict(model_type="transformer_lens", normalization_type="LN", positional_embedding_type="standard",
                     attention_dir="causal", attn_only=False, final_rms=False, eps=1e-5), **fields)


def tl_shapes(c):
    """state_dict of HookedTransformer, biases included."""
    d, H, dh, m = c["d_model"], c["n_heads"], c["d_head"], c["d_mlp"]
    norm = lambda n: {n + ".w": (d,), n + ".b": (d,)} if c["normalization_type"] == "LN" else {}
    s = {"embed.W_E": (c["d_vocab"], d), "pos_embed.W_pos": (c["n_ctx"], d), "unembed.W_U": (d, c["d_vocab_out"]),
         "unembed.b_U": (c["d_vocab_out"],), **norm("ln_final")}
    for l in range(c["n_layers"]):
        b = f"blocks.{l}."
        s.update(norm(b + "ln1"))
        s.update({f"{b}attn.W_{x}": (H, d, dh) for x in "QKV"})
        s.update({f"{b}attn.b_{x}": (H, dh) for x in "QKV"})
        s.update({b + "attn.W_O": (H, dh, d), b + "attn.b_O": (d,)})
        if not c["attn_only"]:
            s.update(norm(b + "ln2"))
            s.update({b + "mlp.W_in": (d, m), b + "mlp.b_in": (m,), b + "mlp.W_out": (m, d), b + "mlp.b_out": (d,)})
    return s


def plain(path, c):
    """Files that have TransformerLens' keys and shapes already."""
    tensors, meta = read_safetensors(path)
    expect(path, tensors, tl_shapes(c))
    return tensors, meta


def transposed(path, c, block):
    """Files of the grokking experiments: every matrix the other way round, W_Q, W_K, W_V [H, dh, d], W_O [d, H dh]
    with the heads side by side, no attention biases, no b_U. Missing biases are written as zeros."""
    source, meta = read_safetensors(path)
    want = tl_shapes(c)
    theirs = {"embed.W_E": want["embed.W_E"][::-1], "pos_embed.W_pos": want["pos_embed.W_pos"],
              "unembed.W_U": want["unembed.W_U"]}
    H, dh, d = c["n_heads"], c["d_head"], c["d_model"]
    for l in range(c["n_layers"]):
        b = f"{block}.{l}."
        theirs.update({f"{b}attn.W_{x}": (H, dh, d) for x in "QKV"})
        theirs[b + "attn.W_O"] = (d, H * dh)
        if not c["attn_only"]:
            m = c["d_mlp"]
            theirs.update({b + "mlp.W_in": (m, d), b + "mlp.b_in": (m,), b + "mlp.W_out": (d, m), b + "mlp.b_out": (d,)})
    expect(path, source, theirs)
    out = {k: np.zeros(s, np.float32) for k, s in want.items()}
    out["embed.W_E"], out["pos_embed.W_pos"] = source["embed.W_E"].T, source["pos_embed.W_pos"]
    out["unembed.W_U"] = source["unembed.W_U"]
    for l in range(c["n_layers"]):
        a, b = f"{block}.{l}.", f"blocks.{l}."
        for x in "QKV":
            out[f"{b}attn.W_{x}"] = source[f"{a}attn.W_{x}"].transpose(0, 2, 1)
        out[b + "attn.W_O"] = source[a + "attn.W_O"].T.reshape(H, dh, d)
        if not c["attn_only"]:
            out[b + "mlp.W_in"], out[b + "mlp.b_in"] = source[a + "mlp.W_in"].T, source[a + "mlp.b_in"]
            out[b + "mlp.W_out"], out[b + "mlp.b_out"] = source[a + "mlp.W_out"].T, source[a + "mlp.b_out"]
    expect(path, out, want)
    return out, meta


BRACKETS = config(d_model=56, n_layers=3, n_heads=2, d_head=28, d_mlp=56, n_ctx=42, d_vocab=5, d_vocab_out=2,
                  act_fn="relu", attention_dir="bidirectional", pad_token_id=1)
MOD_ADDITION = config(d_model=128, n_layers=1, n_heads=4, d_head=32, d_mlp=512, n_ctx=3, d_vocab=114, d_vocab_out=114,
                      act_fn="relu", normalization_type=None)
INDUCTION = config(d_model=48, n_layers=2, n_heads=4, d_head=12, d_mlp=None, n_ctx=85, d_vocab=128, d_vocab_out=128,
                   act_fn=None, attn_only=True, normalization_type=None)
PALINDROME = config(d_model=28, n_layers=2, n_heads=2, d_head=14, d_mlp=None, n_ctx=22, d_vocab=33, d_vocab_out=2,
                    act_fn=None, attn_only=True)


# ---- a forward pass -----------------------------------------------------------------------------------------------

def layer_norm(c, w, name, x):
    if c["normalization_type"] is None:
        return x
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + c["eps"]) * w[name + ".w"] + w[name + ".b"]


def logits(c, w, ids):
    """ids [B, P] -> [B, P, d_vocab_out], float64; no padding."""
    w = {k: v.astype(np.float64) for k, v in w.items()}
    P = ids.shape[1]
    x = w["embed.W_E"][ids] + w["pos_embed.W_pos"][:P]
    for l in range(c["n_layers"]):
        b = f"blocks.{l}."
        h = layer_norm(c, w, b + "ln1", x)[:, None]                                     # [B, 1, P, d]
        q, k, v = (h @ w[f"{b}attn.W_{n}"] + w[f"{b}attn.b_{n}"][:, None] for n in "QKV")  # [B, H, P, dh]
        s = q @ k.swapaxes(-1, -2) / np.sqrt(c["d_head"])
        if c["attention_dir"] == "causal":
            s = np.where(np.tri(P, dtype=bool), s, -np.inf)
        e = np.exp(s - s.max(-1, keepdims=True))
        z = e / e.sum(-1, keepdims=True) @ v
        x = x + (z @ w[b + "attn.W_O"]).sum(1) + w[b + "attn.b_O"]
        if not c["attn_only"]:
            h = layer_norm(c, w, b + "ln2", x)
            x = x + np.maximum(h @ w[b + "mlp.W_in"] + w[b + "mlp.b_in"], 0) @ w[b + "mlp.W_out"] + w[b + "mlp.b_out"]
    return layer_norm(c, w, "ln_final", x) @ w["unembed.W_U"] + w["unembed.b_U"]


# ---- what each must do --------------------------------------------------------------------------------------------
# A check is (facts for check.json, {file name: array}); the model is run where run is true.

def check_brackets(c, w, data, run):
    """The first 10,000 strings of at most 40 brackets; start 0, end 2, ( 3, ) 4; the answer is read at position 0.
    The model was trained with padding that no token attends to, so a string alone, unpadded, gives the same."""
    strings = [(s, y) for s, y in json.loads((data / "models/brackets/brackets_data.json").read_text()) if len(s) <= 40]
    by_length = {}
    for s, y in strings[:10000]:
        by_length.setdefault(len(s) + 2, []).append(([0] + [3 if x == "(" else 4 for x in s] + [2], int(y)))
    files, groups, right = {}, [], 0
    for P, rows in sorted(by_length.items()):
        ids, answer = np.array([r[0] for r in rows], np.int32), np.array([r[1] for r in rows], np.int32)
        files[f"ids_{P}.npy"], files[f"answer_{P}.npy"] = ids, answer
        groups.append({"ids": f"ids_{P}.npy", "answer": f"answer_{P}.npy", "context": P})
        if run:
            right += int((logits(c, w, ids)[:, 0].argmax(-1) == answer).sum())
    n = sum(len(r) for r in by_length.values())
    print(f"brackets: {right}/{n} right, logits at position 0 of unpadded strings; must be 10000/10000" if run else "")
    assert n == 10000 and (not run or right == n)
    return {"kind": "classify", "position": 0, "n": n, "n_right": n, "groups": groups}, files


def check_mod_addition(c, w, data, run):
    a, b = np.divmod(np.arange(113 * 113), 113)
    ids = np.stack([a, b, np.full_like(a, 113)], 1).astype(np.int32)
    answer = ((a + b) % 113).astype(np.int32)
    right = int((logits(c, w, ids)[:, 2].argmax(-1) == answer).sum()) if run else 0
    print(f"mod_addition_113: {right}/{len(ids)} right, tokens [a, b, 113], logits at position 2; must be all" if run else "")
    assert not run or right == len(ids)
    return {"kind": "classify", "position": 2, "n": len(ids), "n_right": len(ids),
            "groups": [{"ids": "ids.npy", "answer": "answer.npy", "context": 3}]}, {"ids.npy": ids, "answer.npy": answer}


def check_palindrome(c, w, data, run):
    """[31, 20 numbers up to 30, 32]; half are palindromes, in the others each of the last ten is redrawn with
    probability 1/2 (at least one differs). The answer is read at the last position."""
    r = np.random.RandomState(1)
    n = 4000
    half = r.randint(0, 31, (n, 10))
    mirror = half[:, ::-1].copy()
    for i in range(n // 2, n):
        while (mirror[i] == half[i, ::-1]).all():
            mirror[i] = np.where(r.rand(10) < 0.5, r.randint(0, 31, 10), half[i, ::-1])
    ids = np.concatenate([np.full((n, 1), 31), half, mirror, np.full((n, 1), 32)], 1).astype(np.int32)
    answer = (np.arange(n) < n // 2).astype(np.int32)
    right = 0
    if run:
        y = logits(c, w, ids)[:, -1]
        right = int((y.argmax(-1) == answer).sum())
        print(f"palindrome: {right}/{n} right ({100 * right / n:.2f} %), logits at position 21; must be about 99.7 %; "
              f"smallest margin {np.abs(y[:, 0] - y[:, 1]).min():.1e}")
        assert 0.995 <= right / n <= 0.999
    return {"kind": "classify", "position": 21, "n": n, "n_right": right,
            "groups": [{"ids": "ids.npy", "answer": "answer.npy", "context": 22}]}, {"ids.npy": ids, "answer.npy": answer}


def check_induction(c, w, data, run):
    """85 random tokens in which the same 16 stand at 5, 33 and 61; the loss of those 16 tokens, each copy."""
    r = np.random.RandomState(1)
    n, starts = 512, [5, 33, 61]
    ids = r.randint(0, 128, (n, 85))
    for s in starts:
        ids[:, s:s + 16] = ids[:, 5:21]
    facts = {"kind": "loss", "ids": "ids.npy", "context": 85, "starts": starts, "length": 16}
    if run:
        y = logits(c, w, ids)
        y = y - y.max(-1, keepdims=True)
        logp = y - np.log(np.exp(y).sum(-1, keepdims=True))
        loss = -np.take_along_axis(logp[:, :-1], ids[:, 1:, None], -1)[..., 0]   # loss[:, t] is that of token t + 1
        hit = y[:, :-1].argmax(-1) == ids[:, 1:]
        facts["loss_by_copy"] = [float(loss[:, s - 1:s + 15].mean()) for s in starts]
        facts["accuracy_by_copy"] = [float(hit[:, s - 1:s + 15].mean()) for s in starts]
        first, later = facts["loss_by_copy"][0], np.mean(facts["loss_by_copy"][1:])
        print(f"induction_head: loss of the first copy {first:.4f} (must be about 5.5), of the later ones {later:.4f} "
              f"(2.4), accuracy there {np.mean(facts['accuracy_by_copy'][1:]):.3f} (0.66-0.69)")
        assert abs(first - 5.5) < 0.1 and abs(later - 2.4) < 0.1
    return facts, {"ids.npy": ids.astype(np.int32)}


MODELS = [
    ("brackets", "models/brackets/brackets.safetensors", BRACKETS, plain, check_brackets),
    ("mod_addition_113", "models/grokking/mod_addition_113.safetensors", MOD_ADDITION,
     lambda p, c: transposed(p, c, "blocks"), check_mod_addition),
    ("induction_head", "models/grokking/induction_head.safetensors", INDUCTION,
     lambda p, c: transposed(p, c, "attn_blocks"), check_induction),
    ("palindrome", "models/arena/palindrome.safetensors", PALINDROME, plain, check_palindrome),
]


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("data", type=pathlib.Path)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--checks", action="store_true", help="write check.json, ids and answers beside each model")
    p.add_argument("--quick", action="store_true", help="do not run the models")
    o = p.parse_args()
    for name, source, c, convert, check in MODELS:
        if not (o.data / source).exists():
            sys.exit(f"convert_arena.py: {o.data / source} is not there")
        weights, meta = convert(o.data / source, c)
        d = o.out / name
        d.mkdir(parents=True, exist_ok=True)
        (d / "config.json").write_text(json.dumps(c, indent=2) + "\n")
        write_safetensors(d / "model.safetensors", weights, {"format": "pt", "source": meta.get("source", name)})
        if o.quick and not o.checks:
            continue
        facts, files = check(c, weights, o.data, not o.quick)
        if o.checks:
            (d / "check.json").write_text(json.dumps(facts, indent=1) + "\n")
            for f, x in files.items():
                np.save(d / f, x)
    print(o.out)


if __name__ == "__main__":
    main()
