#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make a folder of golden numbers for any small config.json: golden_make.py CONFIG OUT [--batch B T] [--seed N]
Forward and gradients in fp64, five AdamW steps in fp32, as tests/golden has them. Needs torch, numpy and safetensors."""
import argparse
import json
import os

import numpy as np
import torch
from safetensors.numpy import save_file

import torch_model as tm

LR, B1, B2, EPS, WD, STEPS = 1e-3, 0.9, 0.95, 1e-8, 0.1, 5


def make_weights(c, seed):
    g = torch.Generator().manual_seed(seed)
    w = {}
    for name, shape in tm.parameter_shapes(c).items():
        t = torch.randn(shape, generator=g, dtype=torch.float64)
        w[name] = (1 + 0.1 * t if len(shape) == 1 else 0.08 * t).float()
    bias = {}
    for i in range(c["num_hidden_layers"]):
        if tm.is_moe(c, i):
            noaux = c.get("topk_method") == "noaux_tc"
            bias[i] = (0.05 * torch.randn(c["n_routed_experts"], generator=g)).float() if noaux else None
    return w, bias


def model_of(c, w, bias, dtype):
    p = {k: v.to(dtype).clone().requires_grad_(True) for k, v in w.items()}
    return tm.Model(c, p, {k: None if b is None else b.to(dtype) for k, b in bias.items()})


def train(c, w, bias, tokens, dtype):
    m = model_of(c, w, bias, dtype)
    ms = {k: torch.zeros_like(v) for k, v in m.w.items()}
    vs = {k: torch.zeros_like(v) for k, v in m.w.items()}
    losses = []
    for t in range(1, STEPS + 2):
        loss = tm.token_loss(m.forward(tokens), tokens).mean()
        losses.append(loss.item())
        if t > STEPS:
            break
        grads = torch.autograd.grad(loss, list(m.w.values()), allow_unused=True)
        with torch.no_grad():
            for (k, p), g in zip(m.w.items(), grads):
                g = torch.zeros_like(p) if g is None else g
                if p.dim() == 2:
                    p.mul_(1 - LR * WD)
                ms[k].mul_(B1).add_(g, alpha=1 - B1)
                vs[k].mul_(B2).addcmul_(g, g, value=1 - B2)
                p.sub_(LR * (ms[k] / (1 - B1 ** t)) / ((vs[k] / (1 - B2 ** t)).sqrt() + EPS))
    return losses, m.w


def main():
    a = argparse.ArgumentParser()
    a.add_argument("config")
    a.add_argument("out")
    a.add_argument("--batch", nargs=2, type=int, default=[2, 32])
    a.add_argument("--seed", type=int, default=1)
    a = a.parse_args()
    c = json.load(open(a.config))
    os.makedirs(a.out, exist_ok=True)
    w, bias = make_weights(c, a.seed)
    B, T = a.batch
    tokens = torch.randint(0, c["vocab_size"], (B, T), generator=torch.Generator().manual_seed(a.seed + 1))

    m = model_of(c, w, bias, torch.float64)
    logits = m.forward(tokens)
    tl = tm.token_loss(logits, tokens)
    grads = torch.autograd.grad(tl.mean(), list(m.w.values()), allow_unused=True)
    grads = {k: (torch.zeros_like(p) if g is None else g) for (k, p), g in zip(m.w.items(), grads)}
    fp32, final = train(c, w, bias, tokens, torch.float32)
    fp64, _ = train(c, w, bias, tokens, torch.float64)

    def arrays(d):
        return {k: np.ascontiguousarray(v.detach().float().numpy()) for k, v in d.items()}

    out = lambda f: os.path.join(a.out, f)
    stored = dict(w)
    for i, b in bias.items():
        if b is not None:
            stored[f"model.layers.{i}.mlp.gate.e_score_correction_bias"] = b
    save_file(arrays(stored), out("model.safetensors"), {"format": "pt"})
    save_file(arrays(grads), out("grads.safetensors"), {"format": "pt"})
    save_file(arrays(final), out("weights_step5.safetensors"), {"format": "pt"})
    np.save(out("tokens.npy"), tokens.numpy().astype(np.int32))
    np.save(out("logits.npy"), logits.detach().numpy().astype(np.float32))
    np.save(out("token_loss.npy"), tl.detach().numpy().astype(np.float32))
    if m.routing:
        np.save(out("routing.npy"), torch.stack(m.routing).numpy().astype(np.int32))
    json.dump(c, open(out("config.json"), "w"), indent=2)
    optimizer = {"name": "AdamW", "lr": LR, "beta1": B1, "beta2": B2, "eps": EPS, "weight_decay": WD,
                 "weight_decay_1d": 0.0, "steps": STEPS, "clip": None}
    json.dump({"loss": tl.mean().item(), "train_loss_fp32": fp32, "train_loss_fp64": fp64, "optimizer": optimizer},
              open(out("loss.json"), "w"), indent=2)


main()
