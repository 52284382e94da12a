# SPDX-License-Identifier: MIT
# Prints sae_truth_values.h: scores of SAELens' SynthSAEBench for a small made-up dictionary, which the C test makes
# again from the same generator. Usage: python make_sae_truth.py > sae_truth_values.h
import sae_lens
import torch
from sae_lens.synthetic.evals import compute_classification_metrics, feature_uniqueness, mean_correlation_coefficient

N, F, D, ROWS = 24, 16, 10, 500
state = 11


def draw():
    global state
    state = (state * 1664525 + 1013904223) % 2**32
    return state >> 16


def matrix(rows, cols):
    return torch.tensor([[(draw() - 32768) / 8192 for _ in range(cols)] for _ in range(rows)], dtype=torch.float64)


def scores(w, f, g, a):
    c = torch.nn.functional.normalize(w, dim=1) @ torch.nn.functional.normalize(g, dim=1).T
    best = c.max(0).values
    p = (a > 0).double().mean(0)
    m = compute_classification_metrics(f, a, w, g)
    return {
        "mmcs": best.mean().item(),
        "mmcs_weighted": ((best * p).sum() / p.sum()).item(),
        "recall_at_0_9": (best > 0.9).double().mean().item(),
        "mcc": mean_correlation_coefficient(w, g),
        "uniqueness": feature_uniqueness(w, g),
        "precision": m.precision,
        "recall": m.recall,
        "f1": m.f1_score,
        "accuracy": m.accuracy,
        "true_l0": (a > 0).double().sum(1).mean().item(),
    }


g, noise = matrix(N, D), matrix(F, D)
w = g[:F] + 0.25 * noise  # near the truth,
w[3] = g[2]  # twice the same one,
w[5] = -2 * g[5]  # upside down,
w[7] = 0  # dead
a = torch.zeros(ROWS, N, dtype=torch.float64)
f = torch.zeros(ROWS, F, dtype=torch.float64)
for r in range(ROWS):
    for i in range(N):
        if draw() % 16 < 2 + i % 5:
            a[r, i] = 1
    for j in range(F):
        if (a[r, j] > 0) != (draw() % 16 < j % 4):  # wrong in 0, 1, 2 or 3 of 16 rows
            f[r, j] = 1
f[:, 9] = 0

print("/* SPDX-License-Identifier: MIT")
print(f" * Written by make_sae_truth.py with sae_lens {sae_lens.__version__}, torch {torch.__version__}. */")
print(f"#define TRUTH_N    {N}\n#define TRUTH_F    {F}\n#define TRUTH_D    {D}\n#define TRUTH_ROWS {ROWS}\n")
for name, (ww, ff, gg, aa) in {
    "more_truth": (w, f, g, a),
    "more_latents": (w, f, g[:10], a[:, :10]),
}.items():
    print(f"static const struct truth_scores {name} = {{" if name != "more_truth" else
          "static const struct truth_scores {\n    double " + ", ".join(scores(w, f, g, a)) + f";\n}} {name} = {{")
    for key, value in scores(ww, ff, gg, aa).items():
        print(f"    .{key} = {value:.9g},")
    print("};")
