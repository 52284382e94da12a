# SPDX-License-Identifier: MIT
# Prints sae_assign_values.h: optimal assignments by scipy.optimize.linear_sum_assignment, for costs that
# the C test makes again from the same generator. Usage: python make_sae_assign.py > sae_assign_values.h
import sys

import numpy as np
import scipy
from scipy.optimize import linear_sum_assignment

SHAPES = [(1, 1), (1, 9), (9, 1), (5, 5), (12, 12), (7, 30), (30, 7), (60, 60), (64, 200), (200, 64), (150, 150)]


def costs(rows, cols):
    """state = state * 1664525 + 1013904223 mod 2^32; a cost is its upper 20 bits: no two sums are likely to be equal."""
    state, out = rows * 1000 + cols, np.empty(rows * cols)
    for i in range(rows * cols):
        state = (state * 1664525 + 1013904223) % 2**32
        out[i] = state >> 12
    return out.reshape(rows, cols)


print("/* SPDX-License-Identifier: MIT")
print(f" * Written by tests/golden/make_sae_assign.py with scipy {scipy.__version__}, numpy {np.__version__}. */")
lists = []
print("static const struct scipy_case {\n    size_t n_rows, n_cols;\n    double least, greatest;\n    const char *columns; /* of the least sum; -1: none */\n} scipy_cases[] = {")
for rows, cols in SHAPES:
    c = costs(rows, cols)
    i, j = linear_sum_assignment(c)
    gi, gj = linear_sum_assignment(c, maximize=True)
    of = np.full(rows, -1)
    of[i] = j
    text = " ".join(map(str, of))
    parts = [text[k:k + 100] for k in range(0, len(text), 100)]
    body = "\n     ".join('"' + p + '"' for p in parts)
    print(f"    {{{rows}, {cols}, {c[i, j].sum():.0f}, {c[gi, gj].sum():.0f},\n     {body}}},")
print("};")
