#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`sonde capture` against Hugging Face transformers, TransformerLens and the golden references.

    SONDE=build/tools/sonde python test_models.py [NAME...]     (SONDE_SEEDS=3 fresh models per family)

stored    every model and variant of tests/golden/models: all hooks of the first sequence, residuals and logits of all
fresh     every family with other random weights and other odd sizes, compared with transformers in float32 (logits,
          residuals, patterns), TransformerLens in float64 (every hook) and reference.py
trained   the converted ARENA models on their tasks, where ../shared/data is
The bar is 5e-5 max(1, max|reference|).
"""
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import warnings

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parent / "golden"
sys.path.insert(0, str(GOLDEN))
warnings.filterwarnings("ignore")

import h5py
import numpy as np
import torch
from safetensors.torch import load_file

import families
import make_models as mm
import reference

SONDE = os.environ.get("SONDE", str(HERE.parent.parent / "build/tools/sonde"))
BAR = 5e-5
count = {"PASS": 0, "FAIL": 0, "SKIP": 0}


def report(verdict, name, why=""):
    count[verdict] += 1
    print(f"{verdict} {name}" + (f": {why}" if why else ""), flush=True)


class Broken(Exception):
    """sonde did not do what was asked."""


# ---- sonde --------------------------------------------------------------------------------------------------------

def capture(model, ids, tmp, hooks=("*",), logits=0, loss=False, more=()):
    """Runs sonde capture; returns {hook: [n_seq, P, ...]} as float64, and logprob [n_seq, P, K] by vocabulary id, loss."""
    ids = np.asarray(ids, np.int32)
    n, P = ids.shape
    np.save(tmp / "ids.npy", ids)
    out = tmp / "out.h5"
    out.unlink(missing_ok=True)
    command = [SONDE, "capture", "--model", str(model), "--ids", str(tmp / "ids.npy"), "--packing", "doc", "--context",
               str(P), "--bos", "never", "--dtype", "f32", "--holdout", "0", "-o", str(out), "-q", *more]
    for h in hooks:
        command += ["--hook", h]
    if any("*" in h or "pattern" in h or "scores" in h for h in hooks):
        command += ["--max-seqs", str(n)]
    if logits:
        command += ["--logits", str(logits)]
    if loss:
        command += ["--loss"]
    r = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if r.returncode:
        raise Broken(f"exit {r.returncode}: {(r.stderr.strip() or 'no message').splitlines()[-1]}")
    with h5py.File(out) as f:
        return read_store(f, ids, logits)


def read_store(f, ids, logits):
    n, P = ids.shape
    got = {}
    if not np.array_equal(f["tokens/id"][:], ids.reshape(-1)):
        raise Broken("/tokens/id are not the ids that were given")
    if "rows/token" in f and not np.array_equal(f["rows/token"][:], np.arange(n * P)):
        raise Broken("/rows/token is not in reading order")
    for group in ("acts", "attn"):
        for name in f.get(group, {}):
            x = f[group][name][:].astype(np.float64)
            got[name] = torch.from_numpy(x if group == "attn" else x.reshape(n, P, *x.shape[1:]))
    if logits:
        k, lp = f["logits/id"][:].reshape(n, P, -1), f["logits/logprob"][:].reshape(n, P, -1)
        full = np.full(lp.shape, np.nan)
        if (k < lp.shape[-1]).all() and (k >= 0).all():
            np.put_along_axis(full, k.astype(np.int64), lp.astype(np.float64), -1)
        got["logprob"], got["top"] = torch.from_numpy(full), k
    if "loss" in f:
        got["loss"] = torch.from_numpy(f["loss"][:].astype(np.float64).reshape(n, P))
    return got


def compare(got, s, want, what, worst):
    """want: {hook: tensor} of sequence s; logits are compared as log probabilities. Raises on the first difference."""
    for k, v in want.items():
        v = v.to(torch.float64)
        if k == "logits":
            k, v = "logprob", v.log_softmax(-1)
        if k not in got:
            raise Broken(f"{what}: sonde has no {k}")
        x = got[k][s]
        if x.numel() != v.numel():
            raise Broken(f"{what}: {k} has shape {tuple(x.shape)}, {tuple(v.shape)} was expected")
        x = x.reshape(v.shape)
        if not torch.equal(torch.isinf(x), torch.isinf(v)):
            raise Broken(f"{what}: {k} is masked in other places")
        d = mm.difference(x, v)
        if not d <= BAR:
            raise Broken(f"{what}: {k} of sequence {s} differs by {d:.2e} (bar {BAR:.0e}, times max|reference|)")
        if d > worst[0]:
            worst[:] = [d, k]


def wanted_hooks(want):
    """Hooks to ask for by name: those that --hook '*' may leave out because they are large or derived."""
    return ["*"] + sorted({k for k in want if k.endswith(("hook_result", "unembed.hook_in", "unembed.hook_out"))})


# ---- stored models ------------------------------------------------------------------------------------------------

def assemble(name, entry, tmp):
    """The directory or file that sonde opens: a model of its own, or one with another's weights."""
    own = GOLDEN / "models" / name
    if (own / "model.gguf").exists():
        return own / "model.gguf"
    if entry.get("weights_of", name) == name:
        return own
    d = tmp / "model"
    shutil.rmtree(d, ignore_errors=True)
    d.mkdir()
    source = GOLDEN / "models" / entry["weights_of"]
    for f in source.glob("model*"):
        shutil.copy(f, d / f.name)
    config = GOLDEN / "models" / entry.get("config", entry["weights_of"] + "/config.json")
    shutil.copy(config, d / "config.json")
    return d


def split_reference(path):
    """ids, and for each sequence {hook: tensor}."""
    t = load_file(str(path))
    ids = t.pop("ids").numpy()
    runs = [{} for _ in ids]
    for k, v in t.items():
        s, hook = k.split(".", 1)
        runs[int(s)][hook] = v
    return ids, runs


def test_stored(name, entry, tmp):
    ids, runs = split_reference(GOLDEN / "models" / entry.get("reference_of", name) / "reference.safetensors")
    model = assemble(name, entry, tmp)
    V = runs[0]["logits"].shape[-1]
    more = ["--processing", ",".join(entry["processing"])] if "processing" in entry else []
    got = capture(model, ids, tmp, hooks=wanted_hooks(runs[0]), logits=V, more=more)
    worst = [0.0, ""]
    for s, want in enumerate(runs):
        compare(got, s, want, "golden", worst)
    report("PASS", f"stored {name}", f"{len(runs[0])} hooks, worst {worst[0]:.1e} at {worst[1]}")


# ---- fresh models -------------------------------------------------------------------------------------------------

def vary(name, seed):
    """Another config of the family: (transformers config, P, n_seq, gain)."""
    import transformers
    r = random.Random(f"{name} {seed}")
    kind, args, _, _, gain = families.HF[name]
    args = dict(args)
    P, n_seq, L = r.choice([1, 2, 7, 16, 17, 33, 64, 65, 97, 130]), r.randint(1, 4), r.randint(1, 3)
    H = r.choice([1, 2, 3, 4, 6, 8])
    dh = 2 * r.randint(2, 17)
    window = r.randint(1, P + 2)
    n_ctx = P + r.randint(0, 9)
    vocab, ff = r.randint(5, 300), r.randint(5, 190)
    if name.startswith("gpt2"):
        d = H * r.randint(3, 33)
        args.update(n_embd=d, n_head=H, n_layer=L, n_inner=r.choice([None, ff]), n_positions=n_ctx, vocab_size=vocab)
    elif name == "gpt_neo":
        d = H * r.randint(3, 33)
        args.update(hidden_size=d, num_heads=H, num_layers=2 * L, intermediate_size=ff, window_size=window,
                    attention_types=[[["global", "local"], L]], vocab_size=vocab, max_position_embeddings=n_ctx)
    elif name.startswith("gpt_neox"):
        pct = r.choice([0.25, 0.5, 1.0])
        dh = 8 * r.randint(1, 5)
        args.update(hidden_size=H * dh, num_attention_heads=H, num_hidden_layers=L, intermediate_size=ff, vocab_size=vocab,
                    max_position_embeddings=n_ctx)
        args["rope_parameters"] = dict(args["rope_parameters"], partial_rotary_factor=pct)
    else:
        Hk = r.choice([k for k in range(1, H + 1) if H % k == 0])
        if name in ("llama_bias", "qwen2", "qwen2_window"):   # no head_dim of their own
            d = H * dh
        else:
            d = H * r.randint(3, 25)
            args["head_dim"] = dh
        args.update(hidden_size=d, num_attention_heads=H, num_key_value_heads=Hk, num_hidden_layers=L, intermediate_size=ff,
                    vocab_size=vocab, max_position_embeddings=max(n_ctx, 64))
        if "sliding_window" in args:
            args["sliding_window"] = window
        if "query_pre_attn_scalar" in args:
            args["query_pre_attn_scalar"] = r.randint(3, 40)
        if "layer_types" in args:
            args["layer_types"] = [r.choice(["sliding_attention", "full_attention"]) for _ in range(L)]
        if "max_window_layers" in args:
            args["max_window_layers"] = r.randint(0, L)
    config = getattr(transformers, kind)(**args, bos_token_id=0, eos_token_id=0, pad_token_id=None)
    return config, P, n_seq, gain


def test_fresh(name, seed, tmp):
    label = f"{name}#{seed}"
    config, P, n_seq, gain = vary(name, seed)
    shapes = {k: p.shape for k, p in mm.hf_model(config, None, torch.float32).named_parameters()}
    parameters = families.draw(label, shapes, gain, gemma="gemma" in name)
    d = tmp / "fresh"
    shutil.rmtree(d, ignore_errors=True)
    d.mkdir()
    stored, state = mm.save_hf(d, config, parameters)
    ids = families.rng(label, "ids").randint(0, config.vocab_size, size=(n_seq, P))
    a, w, runs = mm.run_all(label, stored, state, ids.tolist())
    got = capture(d, ids, tmp, hooks=wanted_hooks(runs[0]), logits=config.vocab_size, loss=True)
    single = mm.hf_model(config, parameters, torch.float32)
    double = mm.hf_model(config, parameters, torch.float64)
    lens = mm.tl_model(a, mm.tl_convert(a, double)) if name not in mm.NO_TL else None
    worst = [0.0, ""]
    for s in range(n_seq):
        compare(got, s, runs[s], "reference.py", worst)
        compare(got, s, mm.hf_run(single, ids[s]), "transformers", worst)
        if lens:
            compare(got, s, mm.tl_run(lens, ids[s]), "TransformerLens", worst)
        check_loss(got["loss"][s], runs[s]["logits"], ids[s])
    report("PASS", f"fresh {label}", f"d {a.d} H {a.H}/{a.Hk} dh {a.dh} m {a.m} V {a.V} L {a.L} P {P}, worst "
                                     f"{worst[0]:.1e} at {worst[1]}")


def check_loss(loss, logits, ids):
    """-log p of the next token; NaN at the last token of a document."""
    want = -logits.log_softmax(-1)[:-1].gather(-1, torch.as_tensor(ids[1:], dtype=torch.long)[:, None])[:, 0]
    if not torch.isnan(loss[-1]) or torch.isnan(loss[:-1]).any():
        raise Broken("/loss: NaN belongs at the last token of a document and nowhere else")
    if want.numel() and mm.difference(loss[:-1], want) > BAR:
        raise Broken(f"/loss differs by {mm.difference(loss[:-1], want):.2e}")


# ---- trained models -----------------------------------------------------------------------------------------------

def test_trained(tmp):
    data = HERE.parent.parent.parent / "shared" / "data"
    data = pathlib.Path(os.environ.get("SONDE_TEST_DATA", data))
    if not data.is_dir():
        report("SKIP", "trained", f"{data} is not there")
        return
    out = tmp / "arena"
    subprocess.run([sys.executable, str(HERE / "convert_arena.py"), str(data), str(out), "--checks"], check=True,
                   stdout=subprocess.DEVNULL)
    for name in ("brackets", "mod_addition_113", "palindrome", "induction_head"):
        guarded(f"trained {name}", lambda: trained(name, out / name, tmp))


def trained(name, d, tmp):
    check = json.loads((d / "check.json").read_text())
    if check["kind"] == "loss":
        ids = np.load(d / check["ids"])
        loss = capture(d, ids, tmp, hooks=("blocks.0.hook_resid_post",), loss=True)["loss"].numpy()
        by_copy = [float(loss[:, s - 1:s + 15].mean()) for s in check["starts"]]
        if max(abs(x - y) for x, y in zip(by_copy, check["loss_by_copy"])) > 1e-4:
            raise Broken(f"losses {by_copy}, {check['loss_by_copy']} were expected")
        report("PASS", f"trained {name}", "losses " + ", ".join(f"{x:.4f}" for x in by_copy))
        return
    right = 0
    for g in check["groups"]:
        ids, answer = np.load(d / g["ids"]), np.load(d / g["answer"])
        got = capture(d, ids, tmp, hooks=("blocks.0.hook_resid_post",), logits=1)
        right += int((got["top"][:, check["position"], 0] == answer).sum())
    if right != check["n_right"]:
        raise Broken(f"{right} of {check['n']} right, {check['n_right']} were expected")
    report("PASS", f"trained {name}", f"{right}/{check['n']} right")


# ---- all ----------------------------------------------------------------------------------------------------------

def guarded(name, test):
    try:
        test()
    except (Broken, subprocess.SubprocessError, AssertionError) as e:
        report("FAIL", name, str(e) or type(e).__name__)


def main():
    import transformers
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    wanted = set(sys.argv[1:])
    listing = json.loads((GOLDEN / "models" / "variants.json").read_text())
    names = [*families.HF, *families.TL, "gpt2_bf16", "llama_f16"]
    with tempfile.TemporaryDirectory() as t:
        tmp = pathlib.Path(t)
        for name in names + list(listing):
            if not wanted or name in wanted:
                guarded(f"stored {name}", lambda: test_stored(name, listing.get(name, {}), tmp))
        for name in families.HF:
            for seed in range(int(os.environ.get("SONDE_SEEDS", "3"))):
                if not wanted or name in wanted:
                    guarded(f"fresh {name}#{seed}", lambda: test_fresh(name, seed, tmp))
        if not wanted or "trained" in wanted:
            test_trained(tmp)
    print(f"test_models: {count['PASS']} passed, {count['FAIL']} failed, {count['SKIP']} skipped")
    sys.exit(1 if count["FAIL"] else 0)


if __name__ == "__main__":
    main()
