# SPDX-License-Identifier: MIT
"""dictionary_learning loads what sonde writes, sonde loads what it saves (every class, random weights), and both compute the
same. The formats whose tools are no Python packages (OpenAI's, Gemma Scope's, circuit-tracer's) are made and evaluated
here by their formulas, through torch, NumPy, safetensors and PyYAML.

SAE_TOOL names the program that evaluates (default: tests/interop/sae_tool beside the build of SONDE). Prints PASS, FAIL and
SKIP lines and a last line "N passed, N failed"."""
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

root = Path(__file__).resolve().parents[2]
sonde = Path(os.environ.get("SONDE", root / "build/tools/sonde"))
tool = Path(os.environ.get("SAE_TOOL", sonde.resolve().parents[1] / "tests/interop/sae_tool"))
warnings.filterwarnings("ignore")

try:
    import numpy as np
    import torch
    import yaml
    from safetensors.torch import load_file, save_file
except ImportError as e:
    print(f"SKIP test_sae_tools: {e}")
    sys.exit(0)

passed = failed = 0
N, D, F, K = 300, 24, 64, 6


def check(name, ok, why=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    print(f"PASS {name}" if ok else f"FAIL {name}: {why}", flush=True)


def run(*args):
    r = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    if r.returncode:
        raise RuntimeError((r.stdout + r.stderr).strip())


def rows():
    g = torch.Generator().manual_seed(7)
    return torch.randn(N, D, generator=g) * 2 + torch.randn(D, generator=g)


def fill(module, seed):
    """Numbers that make a wrong fold show."""
    g = torch.Generator().manual_seed(seed)
    for name, p in sorted(module.named_parameters()):
        p.data = torch.randn(p.shape, generator=g) * (0.3 if p.ndim == 2 else 0.2)
        if name == "threshold":
            p.data = p.data.abs() * 3


def ours(path, tmp):
    np.save(tmp / "x.npy", rows().numpy())
    run(tool, path, tmp / "x.npy", tmp / "f.npy", tmp / "y.npy")
    return torch.from_numpy(np.load(tmp / "f.npy")), torch.from_numpy(np.load(tmp / "y.npy"))


def difference(a, b):
    if a.shape != b.shape:
        return f"shapes {tuple(a.shape)} and {tuple(b.shape)}"
    d = ((a - b).abs().max() / max(1.0, b.abs().max().item())).item()
    return "" if d <= 1e-5 else f"differ by {d:.2g}"


def same(name, got, want):
    why = "; ".join(f"{w}: {d}" for w, g, t in zip(("latents", "output"), got, want) if (d := difference(g, t)))
    active = (want[0] != 0).float().mean().item()
    check(name, not why and 0.005 < active < 0.9, why or f"{active:.3f} of the latents are active")


def convert(a, b, form):
    run(sonde, "convert", a, b, "--to", form, "--force")


# ---- dictionary_learning ------------------------------------------------------------------------------------

def classes():
    from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK
    yield AutoEncoder(D, F), {}
    yield AutoEncoderNew(D, F), {}
    yield GatedAutoEncoder(D, F), {}
    yield JumpReluAutoEncoder(D, F), {}
    yield AutoEncoderTopK(D, F, K), {"k": K}
    yield BatchTopKSAE(D, F, K), {"k": K}
    yield MatryoshkaBatchTopKSAE(D, F, K, [8, 24, 32]), {"k": K}


def theirs(ae):
    with torch.no_grad():
        f = ae.encode(rows())
        return f, ae.decode(f)


def save_dl(ae, config, where):
    where.mkdir()
    torch.save({k: v.cpu() for k, v in ae.state_dict().items()}, where / "ae.pt")
    trainer = {"dict_class": type(ae).__name__, "trainer_class": "X", "activation_dim": D, "dict_size": F, "layer": 8,
               "lm_name": "gpt2", "submodule_name": "resid_post_layer_8", **config}
    (where / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 128}}))


def load_dl(where, ae):
    """As load_dictionary does it, but without a rescaling of the decoder, which changes the latents."""
    from dictionary_learning.dictionary import AutoEncoder
    from dictionary_learning.utils import load_dictionary
    if isinstance(ae, AutoEncoder):
        return AutoEncoder.from_pretrained(where / "ae.pt", normalize_decoder=False)
    got, config = load_dictionary(str(where), device=None)
    assert config["trainer"]["dict_class"] == type(ae).__name__, config
    return got


def dictionary_learning(tmp):
    for i, (ae, config) in enumerate(classes()):
        fill(ae, i)
        name = type(ae).__name__
        if hasattr(ae, "threshold") and config:
            ae.threshold.fill_(1.25)
        want = theirs(ae)
        save_dl(ae, config, tmp / name)
        same(f"sonde_computes_what_{name}_computes", ours(tmp / name, tmp), want)
        convert(tmp / name, tmp / f"{name}.again", "dictionary_learning")
        again = load_dl(tmp / f"{name}.again", ae)
        same(f"{name}_comes_back_through_sonde", theirs(again), want)
        check(f"{name}_loses_nothing", again.state_dict().keys() == ae.state_dict().keys() and
              all(torch.equal(v, ae.state_dict()[k]) for k, v in again.state_dict().items()), "the tensors differ")
        convert(tmp / name, tmp / f"{name}.saelens", "saelens")
        same(f"{name}_as_saelens", ours(tmp / f"{name}.saelens", tmp), want)
        convert(tmp / f"{name}.saelens", tmp / f"{name}.third", "dictionary_learning")
        same(f"{name}_through_saelens", theirs(load_dl(tmp / f"{name}.third", ae)), want)


def backups(tmp):
    """The form that a run writes while it goes on: normalised units."""
    for i, (ae, config) in enumerate(classes()):
        fill(ae, i)
        name = type(ae).__name__
        if not hasattr(ae, "scale_biases"):  # then it is not trained on normalised activations
            continue
        if hasattr(ae, "k") and name != "AutoEncoderTopK":
            ae.threshold.fill_(1.25)
        optimizer = torch.optim.Adam(ae.parameters())
        torch.save({"ae": ae.state_dict(), "optimizer": optimizer.state_dict(), "norm_factor": 2.5,
                    "config": {"dict_class": name, "steps": None, **config}}, tmp / "ae.pt")
        ae.scale_biases(2.5)
        same(f"back_up_of_{name}", ours(tmp / "ae.pt", tmp), theirs(ae))


# ---- formats without a package ------------------------------------------------------------------------------

def openai(tmp):
    g = torch.Generator().manual_seed(3)
    w = {"pre_bias": torch.randn(D, generator=g), "latent_bias": torch.randn(F, generator=g) * 0.2,
         "stats_last_nonzero": torch.zeros(F, dtype=torch.long), "latents_activation_frequency": torch.ones(F),
         "latents_mean_square": torch.ones(F), "encoder.weight": torch.randn(F, D, generator=g) * 0.3,
         "decoder.weight": torch.randn(F, D, generator=g).T * 0.3}

    def evaluate(s):
        x = rows()
        topk = s["activation"] == "TopK"
        if topk:
            mean, x = x.mean(-1, keepdim=True), x - x.mean(-1, keepdim=True)
            std = x.std(-1, keepdim=True)
            x = x / (std + 1e-5)
        z = (x - s["pre_bias"]) @ s["encoder.weight"].T + s["latent_bias"]
        if topk:
            v, at = z.topk(s["activation_state_dict"]["k"])
            z = torch.zeros_like(z).scatter(-1, at, v)
        f = z.relu()
        y = f @ s["decoder.weight"].T + s["pre_bias"]
        return f, y * std + mean if topk else y

    for kind, more in [("TopK", {"activation": "TopK", "activation_state_dict": {"k": K, "postact_fn": "ReLU"}}),
                       ("ReLU", {"activation": "ReLU", "activation_state_dict": {}})]:
        s = {**w, **more}
        torch.save(s, tmp / "a.pt")
        same(f"openai_{kind}", ours(tmp / "a.pt", tmp), evaluate(s))
        convert(tmp / "a.pt", tmp / "b.pt", "openai")
        t = torch.load(tmp / "b.pt", weights_only=True)
        check(f"openai_{kind}_loses_nothing", all(torch.equal(t[k], w[k]) for k in w) and t["activation"] == kind and
              t.get("activation_state_dict", {}) == more["activation_state_dict"], "tensors or values differ")


def gemma(tmp):
    g = torch.Generator().manual_seed(4)
    w = {"W_enc": torch.randn(D, F, generator=g) * 0.3, "W_dec": torch.randn(F, D, generator=g) * 0.3,
         "b_enc": torch.randn(F, generator=g) * 0.2, "b_dec": torch.randn(D, generator=g),
         "threshold": torch.rand(F, generator=g)}

    def evaluate(s, skip=None):
        z = rows() @ s["W_enc"] + s["b_enc"]
        f = z.relu() * (z > s["threshold"])
        return f, f @ s["W_dec"] + s["b_dec"] + (rows() @ skip if skip is not None else 0)

    (tmp / "one").mkdir()
    np.savez(tmp / "one/params.npz", **{k: v.numpy() for k, v in w.items()})
    same("gemma_scope", ours(tmp / "one", tmp), evaluate(w))
    convert(tmp / "one", tmp / "two", "gemma_scope")
    t = np.load(tmp / "two/params.npz")
    check("gemma_scope_loses_nothing", set(t.files) == set(w) and all((t[k] == w[k].numpy()).all() for k in w), "tensors differ")
    skip = torch.randn(D, D, generator=g) * 0.1
    lower = {k.lower(): v for k, v in w.items()}
    (tmp / "three").mkdir()
    save_file({**lower, "affine_skip_connection": skip}, tmp / "three/params.safetensors")
    same("gemma_scope_2", ours(tmp / "three", tmp), evaluate(w, skip))
    convert(tmp / "three", tmp / "four", "gemma_scope_2")
    t = load_file(tmp / "four/params.safetensors")
    check("gemma_scope_2_loses_nothing", len(t) == 6 and all(torch.equal(t[k], v) for k, v in lower.items()) and
          torch.equal(t["affine_skip_connection"], skip), "tensors differ")


def circuit_tracer(tmp):
    g = torch.Generator().manual_seed(5)
    w = {"W_enc": torch.randn(F, D, generator=g) * 0.3, "W_dec": torch.randn(F, D, generator=g) * 0.3,
         "b_enc": torch.randn(F, generator=g) * 0.2, "b_dec": torch.randn(D, generator=g)}
    more = {"relu": {}, "jumprelu": {"activation_function.threshold": torch.rand(F, generator=g)},
            "skip": {"W_skip": torch.randn(D, D, generator=g) * 0.1}, "topk": {}}

    def evaluate(s, k):
        z = rows() @ s["W_enc"].T + s["b_enc"]
        f = z.relu()
        if k:
            v, at = z.topk(k)
            f = torch.zeros_like(z).scatter(-1, at, v)
        elif "activation_function.threshold" in s:
            f = z * (z > s["activation_function.threshold"])
        return f, f @ s["W_dec"] + s["b_dec"] + (rows() @ s["W_skip"].T if "W_skip" in s else 0)

    for kind, extra in more.items():
        s, k = {**w, **extra}, K if kind == "topk" else None
        a, b = tmp / kind, tmp / f"{kind}.again"
        a.mkdir()
        save_file(s, a / "layer_3.safetensors")
        config = {"model_name": "google/gemma-2-2b", "model_kind": "transcoder_set", "feature_input_hook": "ln2.hook_normalized",
                  "feature_output_hook": "hook_mlp_out", "scan": "it's: a #name", "transcoders": ["hf://x/y?z=1", "hf://x/z"]}
        if k:
            config |= {"activation": "topk", "k": k}
        (a / "config.yaml").write_text(yaml.safe_dump(config))
        same(f"circuit_tracer_{kind}", ours(a, tmp), evaluate(s, k))
        convert(a, b, "circuit_tracer")
        t, c = load_file(b / "layer_3.safetensors"), yaml.safe_load((b / "config.yaml").read_text())
        check(f"circuit_tracer_{kind}_loses_nothing", t.keys() == s.keys() and all(torch.equal(t[n], s[n]) for n in s) and
              all(c[n] == config[n] for n in ("model_name", "model_kind", "feature_input_hook", "feature_output_hook")) and
              c.get("k") == k, f"tensors differ, or {c}")


for test in (dictionary_learning, backups, openai, gemma, circuit_tracer):
    with tempfile.TemporaryDirectory() as d:
        try:
            test(Path(d))
        except ImportError as e:
            print(f"SKIP {test.__name__}: {e}")
        except Exception as e:
            check(test.__name__, False, f"{type(e).__name__}: {e}")
print(f"{passed} passed, {failed} failed")
sys.exit(failed != 0)
