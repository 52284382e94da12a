# SPDX-License-Identifier: MIT
"""Training steps against PyTorch: SAELens and dictionary_learning where their formula is ours, the formula written
out where it is not.

Each case gives both sides the same first weights and ten batches. The gradient of the first step and the parameters
after it must agree within 1e-5, those after ten within 1e-4: norms of differences relative to the norm of the
gradient, and of what the steps changed. TRAIN_TOOL names the program (default: tests/interop/train_tool beside the
build of SONDE). Prints PASS, FAIL and SKIP lines and a last line "N passed, N failed"."""
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

root = Path(__file__).resolve().parents[2]
sonde = Path(os.environ.get("SONDE", root / "build/tools/sonde"))
tool = Path(os.environ.get("TRAIN_TOOL", sonde.parents[1] / "tests/interop/train_tool"))
warnings.filterwarnings("ignore")

try:
    import numpy as np
    import torch
    from safetensors.torch import load_file, save_file
except ImportError as e:
    print(f"SKIP test_train_step: {e}")
    sys.exit(0)
if not tool.exists():
    print(f"SKIP test_train_step: {tool} is not built")
    sys.exit(0)

torch.set_num_threads(1)
passed = failed = 0
D, D_OUT, F, B, K, STEPS = 24, 30, 64, 96, 3, 10
LR = 5e-3
DEAD = torch.arange(F) % 4 == 1


def check(name, ok, why=""):
    global passed, failed
    if ok:
        passed += 1
        print(f"PASS {name}")
    else:
        failed += 1
        print(f"FAIL {name}: {why}")


# ---- both sides -------------------------------------------------------------------------------------


def options(arch, **changes):
    o = dict(arch=arch, n_latents=F, k=K, batch=B, n_tokens=1000 * B, lr=LR, warmup=0, decay=0.0, beta1=0.9, beta2=0.999,
             eps=1e-8, clip=1.0, loss=1, sparsity_warmup=0, k_anneal=0, aux_k=0, dead_window=10**9, normalize=0,
             unit_decoder=1, pre_bias=1, skip=0, resample_every=0)
    return o | changes


def first_weights(o, dead=None, seed=1):
    """Nothing is zero, no two rows are alike. What is dead has small pre-activations of both signs: it stays dead for
    the whole test, on whatever row a trainer counts it."""
    g = torch.Generator().manual_seed(seed)
    transcoder = o.get("transcoder", False)
    d_out = D_OUT if transcoder else D
    randn = lambda *shape: torch.randn(*shape, generator=g)
    w = {"W_dec": randn(F, d_out)}
    w["W_dec"] *= (1.0 if o["unit_decoder"] else 0.7) / w["W_dec"].norm(dim=1, keepdim=True)
    w["W_enc"] = randn(F, D) / D**0.5 if transcoder else w["W_dec"] + 0.1 * randn(F, D)
    w |= {"b_enc": 0.1 * randn(F), "b_dec": 0.2 * randn(d_out)}
    if o["arch"] == "gated":
        w |= {"r_mag": 0.2 * randn(F), "b_mag": 0.1 * randn(F)}
    if o["arch"] == "jumprelu":
        w["threshold"] = 0.3 + 0.1 * torch.rand(F, generator=g)
    if o["skip"]:
        w["W_skip"] = 0.1 * randn(d_out, D)
    if dead is not None:
        w["W_enc"][dead] *= 0.03
        w["b_enc"][dead] *= 0.3
        if "threshold" in w:
            w["threshold"][dead] += 2
    return w


def batches(d, seed):
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(STEPS * B, d, generator=g) * 1.2 + 0.3 * torch.randn(d, generator=g)).contiguous()


def ours(o, w, x, y=None, silent=None):
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        (d / "options.json").write_text(json.dumps({k: v for k, v in o.items() if k != "transcoder"}))
        arrays = dict(w) | {"x": x} | ({} if y is None else {"y": y}) | ({} if silent is None else {"silent": silent})
        save_file({k: v.float().contiguous() for k, v in arrays.items()}, d / "in.safetensors")
        r = subprocess.run([tool, d / "options.json", d / "in.safetensors", d / "out.safetensors"], capture_output=True,
                           text=True)
        if r.returncode:
            raise RuntimeError(r.stderr.strip())
        return load_file(d / "out.safetensors")


def gap(a, b, scale):
    return ((a.double() - b.double()).norm() / scale.double().norm().clamp_min(1e-12)).item()


def compare(name, o, theirs, y_too=False, dead=None):
    """dead: which latents have not fired for long.  theirs(w) makes a function that takes a step on (x, y) and returns its loss, with .params() and .grads (of
    the last step, clipped where it clips), both by our names."""
    w = first_weights(o, dead)
    silent = None if dead is None else dead * 1e6
    x, y = batches(D, 2), batches(D_OUT, 3) if y_too else None
    try:
        got = ours(o, w, x, y, silent)
        them = theirs({k: v.clone() for k, v in w.items()})
        why = []
        for s in range(STEPS):
            rows = slice(s * B, s * B + B)
            loss = them.step(x[rows], None if y is None else y[rows])
            if abs(loss - got["loss"][s].item()) > (1e-5 if s == 0 else 1e-4) * abs(loss):
                why.append(f"loss of step {s + 1} is {got['loss'][s].item():.8g}, theirs {loss:.8g}")
            if s == 0:
                clip = min(1.0, o["clip"] / (got["norm"][0].item() + 1e-6)) if o["clip"] else 1.0
                grads, params = them.grads, them.params()
                for k, first in w.items():
                    mine = got[f"grad.{k}"].reshape(first.shape) * clip
                    if not (e := gap(mine, grads[k], grads[k])) <= 1e-5:
                        why.append(f"gradient of {k} {e:.2g}")
                    # Adam's first step is nearly the sign of each element: those that are 0 to rounding decide nothing.
                    sure = grads[k].abs() > 1e-5 * grads[k].pow(2).mean().sqrt()
                    moved = (params[k] - first) * sure
                    if not (e := gap((got[f"first.{k}"].reshape(first.shape) - first) * sure, moved, moved)) <= 1e-5:
                        why.append(f"{k} after 1 step {e:.2g}")
                    if sure.float().mean() < 0.2:
                        why.append(f"hardly a gradient of {k}")
        for k, last in them.params().items():
            moved = last - w[k]
            if not (e := gap(got[f"last.{k}"].reshape(last.shape) - w[k], moved, moved)) <= 1e-4:
                why.append(f"{k} after {STEPS} steps {e:.2g}")
        check(name, not why, "; ".join(why))
    except Exception as e:
        check(name, False, f"{type(e).__name__}: {e}")


class Taker:
    """Arrays of a module by our names; T marks those that lie the other way round."""

    def __init__(self, module, names, optimizer, step):
        self.named = {k: (dict(module.named_parameters())[v.rstrip("^")], v.endswith("^")) for k, v in names.items()}
        self.step_with, self.grads = step, {}
        optimizer.register_step_post_hook(lambda *_: self.take())

    def take(self):
        self.grads = {k: (p.grad.T if t else p.grad).clone() for k, (p, t) in self.named.items()}

    def fill(self, w):
        with torch.no_grad():
            for k, (p, t) in self.named.items():
                p.copy_(w[k].T if t else w[k])
        return self

    def params(self):
        return {k: (p.T if t else p).detach().clone() for k, (p, t) in self.named.items()}

    def step(self, x, y):
        return self.step_with(x, y)


# ---- dictionary_learning ----------------------------------------------------------------------------

LINEAR = dict(W_enc="encoder.weight", b_enc="encoder.bias", W_dec="decoder.weight^", b_dec="b_dec")
MATRICES = dict(W_enc="W_enc^", b_enc="b_enc", W_dec="W_dec", b_dec="b_dec")


def trainer_of(cls, names, dead=None, **args):
    """A trainer of dictionary_learning. Its first step (number 0) would set b_dec and has a sparsity of 0: begin at
    the next. dead: rows since each latent fired."""

    def make(w):
        t = cls(steps=1000, activation_dim=D, dict_size=F, layer=0, lm_name="", device="cpu", warmup_steps=0, lr=LR, **args)
        if dead is not None:
            t.num_tokens_since_fired = dead.long()
        at = iter(range(1, 1000))

        def step(x, _):
            n = next(at)
            if not hasattr(t, "num_tokens_since_fired"):
                loss = t.loss(x, step=n).item()
            else:
                kept = t.num_tokens_since_fired.clone()
                loss = t.loss(x, step=n).item()
                t.num_tokens_since_fired = kept
            t.update(n, x)
            return loss

        return Taker(t.ae, names, t.optimizer, step).fill(w)

    return make


def dictionary_learning():
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.gdm import GatedSAETrainer
    from dictionary_learning.trainers.jumprelu import JumpReLUFunction, JumpReluTrainer, StepFunction
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
    from dictionary_learning.trainers.standard import StandardTrainer, StandardTrainerAprilUpdate
    from dictionary_learning.trainers.top_k import TopKTrainer

    l1 = dict(l1_penalty=0.3, sparsity_warmup_steps=None)
    compare("relu_2023_is_StandardTrainer", options("relu-2023", clip=0.0, l1=0.3),
            trainer_of(StandardTrainer, LINEAR | {"b_dec": "bias"}, **l1))
    compare("relu_is_StandardTrainerAprilUpdate", options("relu", unit_decoder=0, l1=0.3),
            trainer_of(StandardTrainerAprilUpdate, LINEAR | {"b_dec": "bias"}, **l1))
    aux = dict(aux_k=D // 2, aux_coef=1 / 2, dead_window=10**6)
    for dead in (None, DEAD):
        kind, more, args = ("", {}, {}) if dead is None else ("_with_aux", aux, dict(dead=dead * 10**8, auxk_alpha=1 / 2))
        compare(f"topk{kind}_is_TopKTrainer", options("topk", **more),
                trainer_of(TopKTrainer, LINEAR, k=K, **args), dead=dead)
        compare(f"batchtopk{kind}_is_BatchTopKTrainer", options("batchtopk", **more),
                trainer_of(BatchTopKTrainer, LINEAR, k=K, **args), dead=dead)

    # They take the mean over groups of what is weighted already, so weights are divided by the number of groups twice.
    matryoshka = options("matryoshka", prefix=[16, 32, 64], prefix_weight=[1 / 9, 1 / 9, 1 / 9])
    compare("matryoshka_is_MatryoshkaBatchTopKTrainer", matryoshka,
            trainer_of(MatryoshkaBatchTopKTrainer, MATRICES, k=K, group_fractions=[0.25, 0.25, 0.5]))
    compare("gated_is_GatedSAETrainer", options("gated", clip=0.0, beta1=0.0, l1=0.3, gated_detach=1),
            trainer_of(GatedSAETrainer, dict(W_enc="encoder.weight", b_enc="gate_bias", W_dec="decoder.weight^",
                                             b_dec="decoder_bias", r_mag="r_mag", b_mag="mag_bias"), **l1))

    class OnPreActivations(JumpReluTrainer):
        """Theirs counts latents by a step on f, not on z (issue 55): what lies a little below its threshold has f = 0
        and sends it no gradient. Ours counts by z, as the paper does."""

        def loss(self, x, step, logging=False, **_):
            z = x @ self.ae.W_enc + self.ae.b_enc
            f = JumpReLUFunction.apply(z, self.ae.threshold, self.bandwidth)
            l0 = StepFunction.apply(z, self.ae.threshold, self.bandwidth).sum(dim=-1).mean()
            miss = (l0 / self.target_l0 - 1).pow(2)
            return (x - self.ae.decode(f)).pow(2).sum(dim=-1).mean() + self.sparsity_coefficient * miss

    compare("jumprelu_to_a_target_is_JumpReluTrainer_on_pre_activations",
            options("jumprelu", beta1=0.0, pre_bias=0, jump_penalty=0, l0=3.0, target_l0=6.0, bandwidth=0.2),
            trainer_of(OnPreActivations, MATRICES | {"threshold": "threshold"}, bandwidth=0.2, sparsity_penalty=3.0,
                       target_l0=6.0, sparsity_warmup_steps=None))


# ---- SAELens ----------------------------------------------------------------------------------------


def saelens_of(cls, cfg, coefficients, names, dead=None, betas=(0.9, 0.999)):
    from sae_lens.saes.sae import TrainStepInput

    def make(w):
        sae = cls(cfg)
        optimizer = torch.optim.Adam(sae.parameters(), lr=LR, betas=betas)

        def step(x, _):
            out = sae.training_forward_pass(TrainStepInput(sae_in=x, coefficients=coefficients, dead_neuron_mask=dead,
                                                           n_training_steps=0, is_logging_step=False))
            out.loss.backward()
            torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            return out.loss.item()

        return Taker(sae, names, optimizer, step).fill(w)

    return make


def saelens():
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.gated_sae import GatedTrainingSAE, GatedTrainingSAEConfig
    from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
    from sae_lens.saes.matryoshka_batchtopk_sae import (MatryoshkaBatchTopKTrainingSAE,
                                                        MatryoshkaBatchTopKTrainingSAEConfig)
    from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

    free = dict(unit_decoder=0)  # SAELens does not constrain decoders
    size = dict(d_in=D, d_sae=F)
    compare("relu_is_saelens_standard", options("relu", l1=0.3, **free),
            saelens_of(StandardTrainingSAE, StandardTrainingSAEConfig(**size), {"l1": 0.3}, MATRICES))
    compare("relu_without_pre_bias_is_saelens_standard", options("relu", l1=0.3, pre_bias=0, **free),
            saelens_of(StandardTrainingSAE, StandardTrainingSAEConfig(**size, apply_b_dec_to_input=False), {"l1": 0.3},
                       MATRICES))

    # Their gate's loss moves the decoder too (issue 539); so does ours with gated_detach 0, and only then.
    compare("gated_without_detach_is_saelens_gated", options("gated", l1=0.3, gated_detach=0, **free),
            saelens_of(GatedTrainingSAE, GatedTrainingSAEConfig(**size), {"l1": 0.3},
                       dict(W_enc="W_enc^", b_enc="b_gate", W_dec="W_dec", b_dec="b_dec", r_mag="r_mag", b_mag="b_mag")))

    # No latent is dead here: their AuxK is not divided by the residual's variance (see formulas below).
    plain = dict(**size, k=K, rescale_acts_by_decoder_norm=False)
    compare("topk_is_saelens_topk", options("topk", **free),
            saelens_of(TopKTrainingSAE, TopKTrainingSAEConfig(**plain), {}, MATRICES))
    compare("batchtopk_is_saelens_batchtopk", options("batchtopk", **free),
            saelens_of(BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig(**plain), {}, MATRICES))
    compare("matryoshka_is_saelens_matryoshka",
            options("matryoshka", prefix=[8, 24, 64], prefix_weight=[1.0, 1.0, 1.0], **free),
            saelens_of(MatryoshkaBatchTopKTrainingSAE,
                       MatryoshkaBatchTopKTrainingSAEConfig(**plain, matryoshka_widths=[8, 24, 64]), {}, MATRICES))

    jump = dict(**size, jumprelu_bandwidth=0.2)
    names = MATRICES | {"threshold": "threshold"}
    o = options("jumprelu", l0=0.2, bandwidth=0.2, **free)
    compare("jumprelu_step_is_saelens_jumprelu", o | {"jump_penalty": 1},
            saelens_of(JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig(**jump), {"l0": 0.2}, names))
    compare("jumprelu_tanh_is_saelens_jumprelu", o | {"jump_penalty": 2, "tanh_scale": 4.0},
            saelens_of(JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig(**jump, jumprelu_sparsity_loss_mode="tanh"),
                       {"l0": 0.2}, names))
    compare("pre_activation_loss_of_all_is_saelens_with_every_latent_dead",
            o | {"jump_penalty": 2, "tanh_scale": 4.0, "pre_act": 0.05, "pre_act_dead_only": 0},
            saelens_of(JumpReLUTrainingSAE,
                       JumpReLUTrainingSAEConfig(**jump, jumprelu_sparsity_loss_mode="tanh",
                                                 pre_act_loss_coefficient=0.05),
                       {"l0": 0.2}, names, dead=torch.ones(F, dtype=torch.bool)))
    compare("pre_activation_loss_of_the_dead_is_that_of_saelens",
            o | {"jump_penalty": 1, "pre_act": 0.05, "pre_act_dead_only": 1, "dead_window": 10**6},
            saelens_of(JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig(**jump, pre_act_loss_coefficient=0.05),
                       {"l0": 0.2}, names, dead=DEAD), dead=DEAD)


# ---- formulas -----------------------------------------------------------------------------------------


def topk_mask(z, k):
    keep = torch.zeros_like(z)
    return keep.scatter_(-1, z.topk(k, dim=-1).indices, 1.0)


def batch_mask(z):
    return topk_mask(z.flatten(), K * z.shape[0]).reshape(z.shape)


def project(w):
    w.grad -= (w.grad * w).sum(1, keepdim=True) / w.pow(2).sum(1, keepdim=True) * w


class Plain(torch.nn.Module):
    def __init__(self, w):
        super().__init__()
        for k, v in w.items():
            setattr(self, k, torch.nn.Parameter(v.clone()))


def plain_of(o, loss_of, betas=(0.9, 0.999)):
    """loss_of(module, z, x, y) written out; clip, Adam and norms as every trainer has them."""

    def make(w):
        m = Plain(w)
        optimizer = torch.optim.Adam(m.parameters(), lr=LR, betas=betas)
        seen = []

        def step(x, y):
            y = x if y is None else y
            seen.append(y)
            z = (x - m.b_dec if o["pre_bias"] else x) @ m.W_enc.T + m.b_enc
            m.running = torch.cat(seen).double()
            loss = loss_of(m, z, x, y)
            loss.backward()
            if o["unit_decoder"]:
                project(m.W_dec)
            torch.nn.utils.clip_grad_norm_(m.parameters(), o["clip"])
            optimizer.step()
            optimizer.zero_grad()
            if o["unit_decoder"]:
                m.W_dec.data /= m.W_dec.data.norm(dim=1, keepdim=True)
            return loss.item()

        return Taker(m, {k: k for k in w}, optimizer, step).fill(w)

    return make


def auxk(m, z, residual, dead, o):
    """Gao et al. 2024, A.2. The residual is held, b_dec is in neither side, the loss is divided by the variance of the
    residual: SAELens leaves the division out, dictionary_learning resets the counters of this step before it asks which
    latents are dead, OpenAI's and older SAELens' code adds b_dec."""
    r, k = residual.detach(), min(o["aux_k"], int(dead.sum()))
    among = torch.where(dead, z, -torch.inf)
    a = torch.where(dead, z if o.get("aux_any_sign") else z.relu(), 0.0) * topk_mask(among, k)
    share = min(1.0, dead.sum().item() / o["aux_k"]) if o.get("aux_scaled") else 1.0
    spread = (r - r.mean(0)).pow(2).sum()
    return o["aux_coef"] * share * (a @ m.W_dec - r).pow(2).sum() / spread


def formulas():
    for arch in ("topk", "batchtopk"):
        for sign in (0, 1):
            o = options(arch, aux_k=40 if sign else 6, aux_coef=0.5, aux_any_sign=sign, aux_scaled=sign,
                        dead_window=10**6)

            def loss_of(m, z, x, y, o=o, arch=arch):
                f = z.relu() * (topk_mask(z, K) if arch == "topk" else batch_mask(z))
                e = y - (f @ m.W_dec + m.b_dec)
                return e.pow(2).sum(1).mean() + auxk(m, z, e, DEAD, o)

            compare(f"{arch}_with_aux_{'of_any_sign_scaled' if sign else 'of_relu'}_is_the_formula", o,
                    plain_of(o, loss_of), dead=DEAD)

    # FVU: divided by the variance of all targets seen, the mean taken out; the last term is b_dec alone.
    ends, weights = [4, 20, 64], [0.5, 0.3, 0.9]
    o = options("matryoshka", loss=0, prefix=ends, prefix_weight=weights, bias_weight=0.4)

    def nested(m, z, x, y):
        f = z.relu() * batch_mask(z)
        variance = (m.running - m.running.mean(0)).pow(2).sum(1).mean().item()
        terms = [v * (f[:, :e] @ m.W_dec[:e] + m.b_dec - y).pow(2).sum(1).mean() for e, v in zip(ends, weights)]
        return (sum(terms) + 0.4 * (m.b_dec - y).pow(2).sum(1).mean()) / variance

    compare("matryoshka_with_weights_and_bias_term_is_the_formula", o, plain_of(o, nested))

    for skip in (0, 1):
        for loss in range(3):
            o = options("topk", loss=loss, pre_bias=0, skip=skip, transcoder=True)

            def transcode(m, z, x, y, loss=loss, skip=skip):
                y_hat = (z.relu() * topk_mask(z, K)) @ m.W_dec + m.b_dec + (x @ m.W_skip.T if skip else 0)
                variance = (m.running - m.running.mean(0)).pow(2).sum(1).mean().item()
                return (y_hat - y).pow(2).sum(1).mean() / (variance, 1, D_OUT)[loss]

            compare(f"{'skip_' if skip else ''}transcoder_with_loss_{('fvu', 'sum', 'mean')[loss]}_is_the_formula", o,
                    plain_of(o, transcode), y_too=True)


for part in (dictionary_learning, saelens, formulas):
    try:
        part()
    except ImportError as e:
        print(f"SKIP {part.__name__}: {e}")
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
