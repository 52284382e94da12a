# SPDX-License-Identifier: MIT
# The plain PyTorch step of a TopK autoencoder: dense pre-activations, torch.topk, dense decode, autograd, clipping, Adam.
# Usage: torch_step.py D F BATCH K; one thread, CPU seconds, median of 5.
import statistics
import sys
import time

import torch

d, n_latents, batch, k = map(int, sys.argv[1:5])
torch.set_num_threads(1)
torch.manual_seed(0)
w_enc = torch.nn.Parameter(torch.nn.functional.normalize(torch.randn(n_latents, d), dim=1))
w_dec = torch.nn.Parameter(w_enc.detach().clone())
b_enc = torch.nn.Parameter(torch.zeros(n_latents))
b_dec = torch.nn.Parameter(torch.zeros(d))
parameters = [w_enc, w_dec, b_enc, b_dec]
adam = torch.optim.Adam(parameters, lr=1e-4)
x = torch.randn(batch, d) / d ** 0.5
took = []
for step in range(6):
    begin = time.process_time()
    z = (x - b_dec) @ w_enc.T + b_enc
    value, index = torch.topk(z, k, dim=1)
    f = torch.zeros_like(z).scatter_(1, index, torch.relu(value))
    loss = ((f @ w_dec + b_dec - x) ** 2).sum(1).mean()
    adam.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    adam.step()
    with torch.no_grad():
        w_dec.div_(w_dec.norm(dim=1, keepdim=True))
    took.append(time.process_time() - begin)
t = statistics.median(took[1:])
print(f"PyTorch {torch.__version__} topk  step {1e3 * t:7.1f} ms  {batch / t:.0f} rows/s")
