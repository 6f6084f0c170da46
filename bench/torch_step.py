#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training speed of one configuration of the same model in plain PyTorch; bench/vs_pytorch runs it for each configuration
and takes the fastest. Prints one JSON object: seconds of each step after the warm-up, tokens per second of the median.

usage: torch_step.py CONFIG.json [--batch B T] [--dtype fp32|bf16] [--attention explicit|sdpa] [--threads N] [--compile]

Traps avoided (each made PyTorch look slower than it is on some machine): bf16 scaled_dot_product_attention on CPUs, so
explicit attention is tried beside it; a BLAS that starts threads of its own or takes a wrong kernel, so bench/vs_pytorch
tries those that are installed, with one and with all threads; masks and rotation tables built again in each step, so they
are kept; an optimizer that loops in Python, so AdamW is the fused one; the first steps, which are dropped."""
import argparse
import json
import statistics
import time

import torch

import torch_model as tm


def trainer(c, a):
    """A function that does one step: forward, backward, clipping, AdamW."""
    torch.manual_seed(1)
    w = {n: torch.nn.Parameter(torch.ones(s) if len(s) == 1 else 0.02 * torch.randn(s))
         for n, s in tm.parameter_shapes(c).items()}
    noaux = c.get("topk_method") == "noaux_tc"
    bias = {i: torch.zeros(c["n_routed_experts"]) if noaux else None
            for i in range(c["num_hidden_layers"]) if tm.is_moe(c, i)}
    model = tm.Model(c, w, bias, a.attention == "sdpa")
    forward = torch.compile(model.forward) if a.compile else model.forward
    opt = torch.optim.AdamW(w.values(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step(tokens):
        with torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "bf16"):
            logits = forward(tokens)
            loss = tm.token_loss(logits.float(), tokens).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        return loss.item()

    return step


def main():
    p = argparse.ArgumentParser()
    p.add_argument("config")
    p.add_argument("--batch", nargs=2, type=int, default=[4, 512])
    p.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    p.add_argument("--attention", default="explicit", choices=["explicit", "sdpa"])
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--compile", action="store_true")
    p.add_argument("--warmup", type=int, default=2)
    p.add_argument("--steps", type=int, default=5)
    a = p.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    with open(a.config) as f:
        c = json.load(f)
    B, T = a.batch
    step, times, loss = trainer(c, a), [], 0.0
    for i in range(a.warmup + a.steps):
        tokens = torch.randint(0, c["vocab_size"], (B, T))
        begin = time.perf_counter()
        loss = step(tokens)
        if i >= a.warmup:
            times.append(time.perf_counter() - begin)
    print(json.dumps({"tokens_per_s": B * T / statistics.median(times), "step_s": times, "loss": loss,
                      "threads": torch.get_num_threads(), "attention": a.attention, "compile": a.compile,
                      "dtype": a.dtype, "torch": torch.__version__}))


main()
