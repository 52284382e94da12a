# SPDX-License-Identifier: MIT
"""SAELens and sparsify load what sonde writes, sonde loads what they save, and both compute the same.

Every dictionary is made and saved by the other tool. sonde evaluates it (sae_tool), converts it, and the other tool
loads and evaluates the result. SAE_TOOL names the program (default: tests/interop/sae_tool beside the build of SONDE).
Prints PASS, FAIL and SKIP lines and a last line "N passed, N failed"."""
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

root = Path(__file__).resolve().parents[2]
sonde = Path(os.environ.get("SONDE", root / "build/tools/sonde"))
tool = Path(os.environ.get("SAE_TOOL", sonde.parents[1] / "tests/interop/sae_tool"))
os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # it wants a GPU
warnings.filterwarnings("ignore")

try:
    import numpy as np
    import torch
except ImportError as e:
    print(f"SKIP test_sae_formats: {e}")
    sys.exit(0)
if not tool.exists():
    print(f"SKIP test_sae_formats: {tool} is not built")
    sys.exit(0)

passed = failed = 0
N, D, F = 300, 24, 64


def check(name, ok, why=""):
    global passed, failed
    if ok:
        passed += 1
        print(f"PASS {name}")
    else:
        failed += 1
        print(f"FAIL {name}: {why}")


def run(*args):
    r = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    return r.returncode, (r.stdout + r.stderr).strip()


def rows(d=D):
    g = torch.Generator().manual_seed(7)
    return torch.randn(N, d, generator=g) * 2 + torch.randn(d, generator=g)


def fill(module, seed):
    """Numbers that make a wrong fold show: biases, thresholds and norms all over the place."""
    g = torch.Generator().manual_seed(seed)
    for name, p in sorted(module.named_parameters()):
        scale = 0.3 if "W_" in name or "weight" in name else 0.2
        p.data = (torch.randn(p.shape, generator=g) * scale).to(p.dtype)
        if name == "threshold":
            p.data = p.data.abs() * 3


def ours(path, x, tmp):
    np.save(tmp / "x.npy", x.numpy())
    rc, said = run(tool, path, tmp / "x.npy", tmp / "f.npy", tmp / "y.npy")
    if rc:
        raise RuntimeError(said)
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


def convert(a, b, *options):
    rc, said = run(sonde, "convert", a, b, "--force", *options)
    if rc:
        raise RuntimeError(said)


# ---- SAELens -----------------------------------------------------------------------------------------


@torch.no_grad()
def saelens_eval(sae, x):
    f = sae.encode(x)
    f = f.to_dense() if f.is_sparse else f
    y = sae.decode(f)
    if hasattr(sae, "W_skip"):
        y = y + x @ sae.W_skip.T
    return f.float(), y.float()


def saelens_case(name, tmp, cls, cfg):
    from sae_lens import SAE

    x = rows()
    sae = cls(cfg)
    fill(sae, len(name))
    sae.save_model(tmp / "theirs")
    want = saelens_eval(sae, x)
    same(f"{name}_of_saelens_is_evaluated_alike", ours(tmp / "theirs", x, tmp), want)
    convert(tmp / "theirs", tmp / "mine")
    back = SAE.load_from_disk(tmp / "mine")
    same(f"saelens_loads_our_{name}", saelens_eval(back, x), want)
    cfg_in, cfg_out = (json.load(open(tmp / d / "cfg.json")) for d in ("theirs", "mine"))
    expect = "topk" if name.startswith("topk") else cfg_in["architecture"]
    lost = {k for k, v in cfg_in["metadata"].items() if v is not None and cfg_out["metadata"].get(k) != v}
    check(f"{name}_keeps_its_architecture_and_metadata", cfg_out["architecture"] == expect and not lost,
          f"{cfg_out['architecture']}, lost {lost}")


def saelens_unit(name, tmp, cls, cfg):
    """SAEBench's contract: decoder rows of norm 1 within 1e-5, the same reconstruction."""
    from sae_lens import SAE

    x = rows()
    sae = cls(cfg)
    fill(sae, 3)
    sae.save_model(tmp / "theirs")
    convert(tmp / "theirs", tmp / "unit", "--unit-norm-decoder")
    unit = SAE.load_from_disk(tmp / "unit")
    norms = unit.W_dec.norm(dim=-1)
    f, y = saelens_eval(sae, x)
    same(name, saelens_eval(unit, x), (f * sae.W_dec.norm(dim=-1), y))
    check(f"{name}_within_1e-5", (norms - 1).abs().max().item() < 1e-5, str(norms))


def saelens_checkpoint(name, tmp, cls, cfg, options):
    """A training checkpoint, un-folded, becomes what SAELens makes of it when it saves for inference."""
    import copy

    from sae_lens import SAE

    x = rows()
    sae = cls(cfg)
    fill(sae, 11)
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold = torch.tensor(0.75, dtype=torch.double)
    sae.save_model(tmp / "checkpoint")
    other = copy.deepcopy(sae)
    if cfg.normalize_activations == "expected_average_only_in":
        (tmp / "checkpoint" / "activation_scaler.json").write_text('{"scaling_factor": 0.4}')
        other.fold_activation_norm_scaling_factor(0.4)
    other.save_inference_model(tmp / "inference")
    want = saelens_eval(SAE.load_from_disk(tmp / "inference"), x)
    same(f"{name}_is_evaluated_as_saelens_would_save_it", ours(tmp / "checkpoint", x, tmp), want)
    convert(tmp / "checkpoint", tmp / "mine", *options)
    same(f"{name}_converted_is_loaded_by_saelens", saelens_eval(SAE.load_from_disk(tmp / "mine"), x), want)


def saelens_old(name, tmp, cfg, **more):
    """Flat configs of versions 3 to 5: sonde reads them as SAELens' own handler does."""
    from sae_lens import SAE, StandardSAE, StandardSAEConfig
    from safetensors.torch import save_file

    x = rows()
    sae = StandardSAE(StandardSAEConfig(d_in=D, d_sae=F))
    fill(sae, 5)
    tensors = {k: v.contiguous() for k, v in sae.state_dict().items()} | more
    (tmp / "old").mkdir()
    save_file(tensors, tmp / "old/sae_weights.safetensors")
    (tmp / "old/cfg.json").write_text(json.dumps({"d_in": D, "d_sae": F, "dtype": "float32", "device": "cpu"} | cfg))
    same(name, ours(tmp / "old", x, tmp), saelens_eval(SAE.load_from_disk(tmp / "old"), x))


def saelens():
    try:
        import sae_lens as sl
        from sae_lens.saes import transcoder as tc
    except ImportError as e:
        print(f"SKIP saelens: {e}")
        return
    meta = {"model_name": "gpt2", "hook_name": "blocks.8.hook_resid_pre", "context_size": 128, "prepend_bos": True}

    def make(cls, **more):
        return cls(d_in=D, d_sae=F, metadata=sl.saes.sae.SAEMetadata(**meta), **more)

    def trans(cls, **more):
        return make(cls, apply_b_dec_to_input=False, **more)

    J, G, T, S = sl.JumpReLUSAE, sl.GatedSAE, sl.TopKSAE, sl.StandardSAE
    JC, GC, TC, SC = sl.JumpReLUSAEConfig, sl.GatedSAEConfig, sl.TopKSAEConfig, sl.StandardSAEConfig
    cases = {
        "standard": (S, make(SC)),
        "standard_without_pre_bias": (S, make(SC, apply_b_dec_to_input=False)),
        "standard_with_layer_norm": (S, make(SC, normalize_activations="layer_norm")),
        "standard_with_constant_norm": (S, make(SC, normalize_activations="constant_norm_rescale")),
        "topk": (T, make(TC, k=5)),
        "topk_rescaled": (T, make(TC, k=5, rescale_acts_by_decoder_norm=True)),
        "topk_with_layer_norm": (T, make(TC, k=5, normalize_activations="layer_norm")),
        "jumprelu": (J, make(JC)),
        "jumprelu_without_pre_bias": (J, make(JC, apply_b_dec_to_input=False)),
        "gated": (G, make(GC)),
        "transcoder": (tc.Transcoder, trans(tc.TranscoderConfig, d_out=40)),
        "transcoder_of_equal_widths": (tc.Transcoder, trans(tc.TranscoderConfig, d_out=D)),
        "skip_transcoder": (tc.SkipTranscoder, trans(tc.SkipTranscoderConfig, d_out=40)),
        "jumprelu_transcoder": (tc.JumpReLUTranscoder, trans(tc.JumpReLUTranscoderConfig, d_out=40)),
        "jumprelu_skip_transcoder": (tc.JumpReLUSkipTranscoder, trans(tc.JumpReLUSkipTranscoderConfig, d_out=40)),
    }
    for name, (cls, cfg) in cases.items():
        with tempfile.TemporaryDirectory() as t:
            guarded_case(name, saelens_case, Path(t), cls, cfg)
    for name, (cls, cfg) in {k: cases[k] for k in ("standard", "jumprelu", "gated")}.items():
        with tempfile.TemporaryDirectory() as t:
            guarded_case(f"{name}_gets_a_unit_norm_decoder", saelens_unit, Path(t), cls, cfg)
    checkpoints(sl, make)
    old = {"hook_name": "blocks.3.hook_resid_pre", "prepend_bos": True}
    for name, cfg, more in [
        ("version_3_standard", {"hook_point": "blocks.3.hook_resid_pre", "normalize_activations": False}, {}),
        ("version_5_standard", old | {"architecture": "standard", "activation_fn_str": "relu",
                                      "apply_b_dec_to_input": False, "normalize_activations": "none"}, {}),
        ("version_5_topk", old | {"architecture": "standard", "activation_fn_str": "topk",
                                  "activation_fn_kwargs": {"k": 6}}, {}),
        ("version_4_jumprelu", old | {"architecture": "jumprelu"}, {"threshold": torch.rand(F) * 2}),
        ("version_4_with_finetuning_ones", old, {"scaling_factor": torch.ones(F)}),
    ]:
        with tempfile.TemporaryDirectory() as t:
            guarded_case(name, saelens_old, Path(t), cfg, **more)


def guarded_case(name, f, tmp, *args, **more):
    try:
        f(name, tmp, *args, **more)
    except Exception as e:  # noqa: BLE001
        check(name, False, f"{type(e).__name__}: {e}")


def checkpoints(sl, make):
    M = sl.MatryoshkaBatchTopKTrainingSAEConfig
    for arch, cls, cfg_cls, more in [
        ("standard", sl.StandardTrainingSAE, sl.StandardTrainingSAEConfig, {}),
        ("gated", sl.GatedTrainingSAE, sl.GatedTrainingSAEConfig, {}),
        ("jumprelu", sl.JumpReLUTrainingSAE, sl.JumpReLUTrainingSAEConfig, {}),
        ("topk", sl.TopKTrainingSAE, sl.TopKTrainingSAEConfig, {"k": 5}),
        ("batchtopk", sl.BatchTopKTrainingSAE, sl.BatchTopKTrainingSAEConfig, {"k": 5}),
        ("matryoshka", sl.MatryoshkaBatchTopKTrainingSAE, M, {"k": 5, "matryoshka_widths": [16, 32]}),
    ]:
        ways = [("plain", {}), ("scaled", {"normalize_activations": "expected_average_only_in"})]
        if "k" in more:
            ways += [("unrescaled", {"rescale_acts_by_decoder_norm": False}),
                     ("unrescaled_scaled", {"rescale_acts_by_decoder_norm": False,
                                            "normalize_activations": "expected_average_only_in"})]
        for way, extra in ways:
            with tempfile.TemporaryDirectory() as t:
                cfg = make(cfg_cls, **more, **extra)
                guarded_case(f"checkpoint_{arch}_{way}", saelens_checkpoint, Path(t), cls, cfg, [])


# ---- sparsify ----------------------------------------------------------------------------------------


@torch.no_grad()
def sparsify_eval(sae, x):
    out = sae.encode(x)
    f = torch.zeros(len(x), sae.num_latents).scatter_(1, out.top_indices, out.top_acts)
    y = sae.decode(out.top_acts, out.top_indices)
    return f, y if sae.W_skip is None else y + x @ sae.W_skip.mT


def sparsify_case(name, tmp, cfg):
    from sparsify import SparseCoder

    x = rows()
    sae = SparseCoder(D, cfg)
    fill(sae, 23)
    sae.save_to_disk(tmp / "theirs")
    want = sparsify_eval(sae, x)
    same(f"{name}_is_evaluated_alike", ours(tmp / "theirs", x, tmp), want)
    convert(tmp / "theirs", tmp / "mine", "--to", "sparsify")
    same(f"sparsify_loads_our_{name}", sparsify_eval(SparseCoder.load_from_disk(tmp / "mine"), x), want)
    convert(tmp / "mine", tmp / "ours")
    convert(tmp / "ours", tmp / "again", "--to", "sparsify")
    lost = [n for n in ("sae.safetensors", "cfg.json")
            if (tmp / "mine" / n).read_bytes() != (tmp / "again" / n).read_bytes()]
    check(f"{name}_through_saelens_and_back", not lost, f"{lost} differ")


def saelens_reads_sparsify(name, tmp):
    """SAELens' loader transposes W_dec, which in real files is [F, d] already; where it reads decoder.weight [d, F]
    it is right. sonde agrees with sparsify on the first and with SAELens on the second."""
    from sae_lens import SAE
    from sae_lens.loading.pretrained_sae_loaders import sparsify_disk_loader
    from safetensors.torch import load_file, save_file
    from sparsify import SparseCoder, SparseCoderConfig

    x = rows()
    sae = SparseCoder(D, SparseCoderConfig(num_latents=F, k=5, normalize_decoder=False))
    fill(sae, 29)
    path = tmp / "layers.3"
    sae.save_to_disk(path)
    tensors = load_file(path / "sae.safetensors")
    tensors["decoder.weight"] = tensors.pop("W_dec").T.contiguous()
    save_file(tensors, path / "sae.safetensors")
    want = sparsify_eval(sae, x)
    back = SAE.load_from_disk(path, converter=sparsify_disk_loader, dtype="float32")
    got = saelens_eval(back.float(), x)
    loose = difference(got[1], want[1])  # it rounds to bfloat16 on the way
    same(name, ours(path, x, tmp), want)
    check(f"{name}_as_saelens_does", float((got[1] - want[1]).abs().max() / want[1].abs().max()) < 0.05, loose)


def sparsify():
    try:
        from sparsify import SparseCoderConfig
    except ImportError as e:
        print(f"SKIP sparsify: {e}")
        return
    for name, more in {
        "sparsify_topk": {},
        "sparsify_groupmax": {"activation": "groupmax"},
        "sparsify_transcoder": {"transcode": True},
        "sparsify_skip_transcoder": {"transcode": True, "skip_connection": True},
        "sparsify_expansion_factor": {"num_latents": 0, "expansion_factor": 3, "k": 6},
        "sparsify_square": {"num_latents": D, "k": 6},
    }.items():
        with tempfile.TemporaryDirectory() as t:
            guarded_case(name, sparsify_case, Path(t), SparseCoderConfig(**({"num_latents": F, "k": 4} | more)))
    with tempfile.TemporaryDirectory() as t:
        guarded_case("a_sparsify_file_with_decoder_weight", saelens_reads_sparsify, Path(t))


saelens()
sparsify()
print(f"{passed} passed, {failed} failed")
sys.exit(failed != 0)
