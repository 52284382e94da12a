# SPDX-License-Identifier: MIT
"""Metrics of a made-up dictionary in float64 numpy, written as the C header that tests/unit/test_sae_metrics.c reads.

    python3 tests/golden/make_sae_metrics.py > tests/golden/sae_metrics_values.h

Formulas as they stand in the papers and tools, over whole arrays, not in the order of the C code. The test draws the
same numbers from the same generator."""
import sys

import numpy as np

N, D, F = 1000, 24, 40


class Draw:
    """Numerical Recipes' 32-bit linear congruential generator; its upper 16 bits."""

    def __init__(self, seed):
        self.s = seed

    def next(self):
        self.s = (self.s * 1664525 + 1013904223) % 2**32
        return self.s >> 16


def data():
    y, h, f = np.zeros((N, D), np.float32), np.zeros((N, D), np.float32), np.zeros((N, F), np.float32)
    g = Draw(7)
    for r in range(N):
        for c in range(D):
            y[r, c] = (g.next() - 32768) / 8192.0 + c / 16.0
            h[r, c] = float(y[r, c]) * 0.75 + (g.next() - 32768) / 65536.0 + 0.25
        for i in range(F):
            a, v = g.next(), g.next()
            # latent i fires in i^2 / 2048 of the rows; latents 0 and 7 never
            if i != 7 and a % 2048 < i * i:
                f[r, i] = (v + 1) / 4096.0
    y[17] = h[17] = 0  # a row without a norm: it counts for some means and not for others
    return y, h, f


def metrics(y, h, f):
    y, h, f = y.astype(np.float64), h.astype(np.float64), f.astype(np.float64)
    e, v = y - h, y - y.mean(0)
    norm_y, norm_h = np.linalg.norm(y, axis=1), np.linalg.norm(h, axis=1)
    ok = norm_y > 0
    freq = (f != 0).mean(0)
    cos = np.zeros(N)
    cos[ok] = (y[ok] * h[ok]).sum(1) / (norm_y[ok] * norm_h[ok])
    b = 1 - (e**2).sum(1).mean() / (v**2).sum(1).mean()
    return {
        "l0": (f != 0).sum(1).mean(),
        "l1": f.sum(1).mean(),
        "mse": (e**2).sum(1).mean(),
        "mse_per_element": (e**2).mean(),
        "explained_variance": b,
        "explained_variance_legacy": (1 - (e**2).sum(1) / (v**2).sum(1)).mean(),
        "frac_variance_explained": 1 - e.var(0).sum() / y.var(0).sum(),
        "fvu": 1 - b,
        "cossim": cos.mean(),
        "l2_norm_in": norm_y.mean(),
        "l2_norm_out": norm_h.mean(),
        "l2_ratio": (norm_h[ok] / norm_y[ok]).mean(),
        "relative_reconstruction_bias": (norm_h**2).mean() / (y * h).sum(1).mean(),
        "frac_alive": (freq > 0).mean(),
        "freq_over_1_percent": (freq > 0.01).mean(),
        "freq_over_10_percent": (freq > 0.1).mean(),
        "normalized_freq_over_1_percent": freq[freq > 0.01].sum() / freq.sum(),
        "normalized_freq_over_10_percent": freq[freq > 0.1].sum() / freq.sum(),
    }


def row(values, fmt):
    return "{" + ", ".join(fmt % v for v in values) + "}"


def main():
    y, h, f = data()
    d = f.astype(np.float64)
    fired = (f != 0).sum(0)
    hist = np.histogram(np.log10(fired / N + 1e-10), bins=np.arange(-10, 0.01, 0.25))[0]
    print("/* SPDX-License-Identifier: MIT\n * Written by tests/golden/make_sae_metrics.py with numpy", np.__version__, "*/")
    print("/* clang-format off */")
    print(f"enum {{ GOLDEN_N = {N}, GOLDEN_D = {D}, GOLDEN_F = {F} }};")
    print("static const struct { const char *name; double value; } golden[] = {")
    for k, v in metrics(y, h, f).items():
        print(f'    {{"{k}", {v:.17g}}},')
    print("};")
    print("static const uint64_t golden_fired[GOLDEN_F] =", row(fired, "%d") + ";")
    print("static const double golden_mean[GOLDEN_F] =", row(d.mean(0), "%.17g") + ";")
    print("static const double golden_mean_nonzero[GOLDEN_F] =", row(d.sum(0) / np.maximum(fired, 1), "%.17g") + ";")
    print("static const double golden_max[GOLDEN_F] =", row(d.max(0), "%.17g") + ";")
    print("static const uint64_t golden_density[40] =", row(hist, "%d") + ";")
    print("/* clang-format on */")


if __name__ == "__main__":
    sys.exit(main())
