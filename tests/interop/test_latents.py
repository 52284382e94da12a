# SPDX-License-Identifier: MIT
"""h5py and scipy read what `sonde encode` writes, and numpy finds the numbers of `sonde eval`.

Prints PASS, FAIL and SKIP lines and a last line "N passed, N failed"."""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

root = Path(__file__).resolve().parents[2]
sonde = Path(os.environ.get("SONDE", root / "build/tools/sonde"))

try:
    import h5py
    import numpy as np
    from safetensors.numpy import save_file
except ImportError as e:
    print(f"SKIP test_latents: {e}")
    sys.exit(0)
try:
    from scipy.sparse import csr_matrix
except ImportError:
    csr_matrix = None

passed = failed = 0


def check(name, ok, why=""):
    global passed, failed
    if ok:
        passed += 1
        print(f"PASS {name}")
    else:
        failed += 1
        print(f"FAIL {name}: {why}")


def run(*args):
    return subprocess.run([str(sonde), *map(str, args)], capture_output=True, text=True)


def dictionary(path, rng, d, F):
    """A JumpReLU dictionary as SAELens saves it."""
    path.mkdir()
    w = rng.standard_normal((F, d)).astype(np.float32)
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    t = {
        "W_enc": np.ascontiguousarray(w.T),
        "W_dec": w,
        "b_enc": rng.standard_normal(F).astype(np.float32) * 0.1,
        "b_dec": rng.standard_normal(d).astype(np.float32) * 0.1,
        "threshold": np.full(F, 0.8, np.float32),
    }
    t["b_enc"][3] = -1000  # never active
    save_file(t, path / "sae_weights.safetensors")
    cfg = {
        "architecture": "jumprelu",
        "d_in": d,
        "d_sae": F,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.18.0", "hook_name": "blocks.1.hook_resid_post"},
    }
    (path / "cfg.json").write_text(json.dumps(cfg))
    return {k: v.astype(np.float64) for k, v in t.items()}


def encode(t, x):
    z = (x - t["b_dec"]) @ t["W_enc"] + t["b_enc"]
    return np.where(z > t["threshold"], z, 0), np.abs(z - t["threshold"]).min()


def nearest(w):
    c = w @ w.T / np.outer(np.linalg.norm(w, axis=1), np.linalg.norm(w, axis=1))
    np.fill_diagonal(c, -np.inf)
    return c.max(1).mean()


def sae_lens_numbers(path, x):
    """The numbers of SAELens' own evaluation, given the rows as one batch of a model's activations."""
    try:
        import torch
        from sae_lens import SAE
        from sae_lens.evals import get_featurewise_weight_based_metrics, get_sparsity_and_variance_metrics
    except ImportError as e:
        print(f"SKIP sae_lens: {e}")
        return None, None
    sae = SAE.load_from_disk(path)
    acts = torch.from_numpy(x.astype(np.float32))

    class Rows:
        def get_batch_tokens(self, n):
            return torch.zeros((1, len(x)), dtype=torch.long)

        def run_with_cache(self, tokens, **kwargs):
            return None, {"blocks.1.hook_resid_post": acts[None]}

        def scale(self, a):
            return a

        unscale = scale

    with torch.no_grad():
        numbers, _ = get_sparsity_and_variance_metrics(
            sae, Rows(), Rows(), Rows(), 1, True, True, True, True, 1, {})
        weights = get_featurewise_weight_based_metrics(sae)
        latents = sae.encode(acts).numpy()
    numbers["encoder_norm_mean"] = float(np.mean(weights["encoder_norm"]))
    numbers["encoder_decoder_cosine_sim"] = float(np.mean(weights["encoder_decoder_cosine_sim"]))
    return numbers, latents


def main():
    rng = np.random.default_rng(0)
    N, d, F = 5000, 16, 64
    with tempfile.TemporaryDirectory() as name:
        tmp = Path(name)
        t = dictionary(tmp / "sae", rng, d, F)
        x = (rng.standard_normal((N, d)) + rng.standard_normal(d)).astype(np.float32)
        with h5py.File(tmp / "acts.h5", "w") as f:
            f["x"] = x
        x = x.astype(np.float64)
        want, margin = encode(t, x)
        r = run("encode", tmp / "sae", f"{tmp}/acts.h5:/x", "-o", tmp / "latents.h5")
        check("encode_runs", r.returncode == 0, r.stderr)
        with h5py.File(tmp / "latents.h5") as f:
            indptr, indices, values = (f[k][...] for k in ("indptr", "indices", "values"))
            check("types", (indptr.dtype, indices.dtype, values.dtype) == (np.int64, np.int32, np.float32))
            check("rows", np.array_equal(f["rows/row"][...], np.arange(N)) and (f["rows/token"][...] == -1).all())
            check("attributes", f.attrs["format"] == "sonde-latents" and f.attrs["n_latents"] == F, dict(f.attrs))
            check("source_is_json", "hook" in json.loads(f.attrs["source"]), f.attrs["source"])
        have = np.zeros((N, F))
        have[np.repeat(np.arange(N), np.diff(indptr)), indices] = values
        close = np.isclose(have, want, atol=1e-5)
        check("values", close.all() or margin < 1e-5, f"{(~close).sum()} differ")
        if csr_matrix is None:
            print("SKIP scipy: not installed")
        else:
            m = csr_matrix((values, indices, indptr), shape=(N, F))
            m.check_format(full_check=True)
            check("scipy", m.has_canonical_format and np.array_equal(m.toarray(), have.astype(np.float32)))
        r = run("eval", tmp / "sae", f"{tmp}/acts.h5:/x", "--split", "all", "--json")
        check("eval_runs", r.returncode == 0, r.stderr)
        j = json.loads(r.stdout)
        y = want @ t["W_dec"] + t["b_dec"]
        e, v, freq = x - y, x - x.mean(0), (want != 0).mean(0)
        ny, nx = np.linalg.norm(y, axis=1), np.linalg.norm(x, axis=1)
        expected = {
            "n_rows": N,
            "l0": (want != 0).sum(1).mean(),
            "l1": want.sum(1).mean(),
            "mse": (e**2).sum(1).mean(),
            "explained_variance": 1 - (e**2).sum() / (v**2).sum(),
            "explained_variance_legacy": (1 - (e**2).sum(1) / (v**2).sum(1)).mean(),
            "frac_variance_explained": 1 - e.var(0).sum() / x.var(0).sum(),
            "cossim": ((x * y).sum(1) / (nx * ny)).mean(),
            "l2_ratio": (ny / nx).mean(),
            "relative_reconstruction_bias": (ny**2).mean() / (x * y).sum(1).mean(),
            "dead_features": (freq == 0).sum(),
            "freq_over_10_percent": (freq > 0.1).mean(),
            "average_max_decoder_cosine_sim": nearest(t["W_dec"]),
            "average_max_encoder_cosine_sim": nearest(t["W_enc"].T),
            "encoder_decoder_cosine_sim": 1.0,
            "decoder_norm_mean": 1.0,
        }
        for k, value in expected.items():
            check(f"eval_{k}", np.isclose(j[k], value, rtol=1e-5, atol=1e-6), f"{j[k]}, numpy says {value}")
        theirs, latents = sae_lens_numbers(tmp / "sae", x)
        if theirs:
            close = np.isclose(have, latents, atol=1e-5)
            check("sae_lens_latents", close.all() or margin < 1e-5, f"{(~close).sum()} differ")
            for k, value in sorted(theirs.items()):
                # float32 sums over 5000 rows on their side
                check(f"sae_lens_{k}", k in j and np.isclose(j[k], value, rtol=2e-5), f"{j.get(k)}, SAELens says {value}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
