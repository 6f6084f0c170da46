#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training speed of the same model in plain PyTorch: torch_step.py CONFIG --batch B T [--dtype fp32|bf16] [--json]
Tries the configurations below and reports each; the fastest one is the baseline of bench/vs_pytorch.

Traps avoided (each made PyTorch look slower than it is on some machine): bf16 scaled_dot_product_attention on CPUs, so
explicit attention is tried beside it; OpenBLAS with its own threads on few cores, so the BLAS in use is printed and one and
all threads are tried; float64 masks and tables rebuilt in the step, so they are kept in the compute type; a Python-loop
optimizer, so AdamW is the fused one where it exists; the first steps, which are dropped; MKLDNN weight reordering, which
stays on."""
import argparse
import json
import statistics
import time

import torch

import torch_model as tm


def measure(c, B, T, dtype, sdpa, threads, steps):
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    w = {n: torch.nn.Parameter(torch.ones(s) if len(s) == 1 else 0.02 * torch.randn(s))
         for n, s in tm.parameter_shapes(c).items()}
    noaux = c.get("topk_method") == "noaux_tc"
    bias = {i: torch.zeros(c["n_routed_experts"]) if noaux else None
            for i in range(c["num_hidden_layers"]) if tm.is_moe(c, i)}
    model = tm.Model(c, w, bias, sdpa)
    try:
        opt = torch.optim.AdamW(w.values(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    except (RuntimeError, TypeError):
        opt = torch.optim.AdamW(w.values(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, foreach=True)
    times = []
    for step in range(steps + 2):
        tokens = torch.randint(0, c["vocab_size"], (B, T))
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            logits = model.forward(tokens)
            loss = tm.token_loss(logits.float(), tokens).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        if step >= 2:
            times.append(time.perf_counter() - begin)
    return B * T / statistics.median(times), min(times), max(times)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("config")
    a.add_argument("--batch", nargs=2, type=int, default=[4, 512])
    a.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    a.add_argument("--steps", type=int, default=5)
    a.add_argument("--json", action="store_true")
    a = a.parse_args()
    c = json.load(open(a.config))
    B, T = a.batch
    found = []
    for threads in sorted({1, torch.get_num_threads()}):
        for sdpa in (False, True):
            rate, lo, hi = measure(c, B, T, a.dtype, sdpa, threads, a.steps)
            found.append({"threads": threads, "attention": "sdpa" if sdpa else "explicit", "tokens_per_s": rate,
                          "step_s_min": lo, "step_s_max": hi})
            if not a.json:
                print(f"{threads} threads, {found[-1]['attention']} attention: {rate:.0f} tokens/s")
    best = max(found, key=lambda f: f["tokens_per_s"])
    if a.json:
        print(json.dumps({"torch": torch.__version__, "dtype": a.dtype, "best": best, "all": found}))
    else:
        print(f"best: {best['tokens_per_s']:.0f} tokens/s")


main()
