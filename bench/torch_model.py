# SPDX-License-Identifier: Apache-2.0
"""The DeepSeek-V2/V3 transformer in plain PyTorch, for comparison only: golden_make.py computes reference numbers
with it, vs_pytorch times it. Reads the same config.json; parameters carry the hub names."""
import math

import torch
import torch.nn.functional as F


def is_moe(c, layer):
    return bool(c.get("n_routed_experts")) and layer >= c.get("first_k_dense_replace", 0) and \
        layer % c.get("moe_layer_freq", 1) == 0


def parameter_shapes(c):
    """Name -> shape of every trained tensor, in file order."""
    h, H = c["hidden_size"], c["num_attention_heads"]
    n, r, v = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    ql, kl = c.get("q_lora_rank"), c["kv_lora_rank"]
    out = {"model.embed_tokens.weight": (c["vocab_size"], h)}

    def mlp(prefix, width):
        out[prefix + "gate_proj.weight"] = (width, h)
        out[prefix + "up_proj.weight"] = (width, h)
        out[prefix + "down_proj.weight"] = (h, width)

    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        a = p + "self_attn."
        out[p + "input_layernorm.weight"] = (h,)
        if ql:
            out[a + "q_a_proj.weight"] = (ql, h)
            out[a + "q_a_layernorm.weight"] = (ql,)
            out[a + "q_b_proj.weight"] = (H * (n + r), ql)
        else:
            out[a + "q_proj.weight"] = (H * (n + r), h)
        out[a + "kv_a_proj_with_mqa.weight"] = (kl + r, h)
        out[a + "kv_a_layernorm.weight"] = (kl,)
        out[a + "kv_b_proj.weight"] = (H * (n + v), kl)
        out[a + "o_proj.weight"] = (h, H * v)
        out[p + "post_attention_layernorm.weight"] = (h,)
        if is_moe(c, i):
            out[p + "mlp.gate.weight"] = (c["n_routed_experts"], h)
            for e in range(c["n_routed_experts"]):
                mlp(f"{p}mlp.experts.{e}.", c["moe_intermediate_size"])
            if c.get("n_shared_experts"):
                mlp(p + "mlp.shared_experts.", c["moe_intermediate_size"] * c["n_shared_experts"])
        else:
            mlp(p + "mlp.", c["intermediate_size"])
    out["model.norm.weight"] = (h,)
    out["lm_head.weight"] = (c["vocab_size"], h)
    return out


def rope_tables(c, T, dtype):
    d, base, s = c["qk_rope_head_dim"], c.get("rope_theta", 10000.0), c.get("rope_scaling")
    i = torch.arange(d // 2, dtype=torch.float64)
    f = base ** (-2 * i / d)
    amplitude = 1.0
    if s:
        L, factor = s["original_max_position_embeddings"], s["factor"]

        def corr(turns):
            return d * math.log(L / (2 * math.pi * turns)) / (2 * math.log(base))

        lo = max(math.floor(corr(s.get("beta_fast", 32))), 0)
        hi = min(math.ceil(corr(s.get("beta_slow", 1))), d - 1)
        hi = hi + 0.001 if hi == lo else hi
        ramp = ((i - lo) / (hi - lo)).clamp(0, 1)
        f = f * (1 - ramp) + f / factor * ramp
        amplitude = mscale(factor, s.get("mscale", 1)) / mscale(factor, s.get("mscale_all_dim", 0))
    angle = torch.arange(T, dtype=torch.float64)[:, None] * f[None]
    return (amplitude * angle.cos()).to(dtype), (amplitude * angle.sin()).to(dtype)


def mscale(factor, a):
    return 1.0 if factor <= 1 else 0.1 * a * math.log(factor) + 1.0


def rms(x, w, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * w


def rotate(x, cos, sin):
    """x [..., T, r]; adjacent pairs."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


def route(c, scores, bias):
    """ids [N, K] ascending, chosen by the gate of the config."""
    N, E = scores.shape
    K, method = c["num_experts_per_tok"], c.get("topk_method", "greedy")
    choice = scores + bias if method == "noaux_tc" else scores
    if method != "greedy":
        G = c["n_group"]
        g = choice.view(N, G, E // G)
        group = g.topk(min(2, E // G), -1).values.sum(-1) if method == "noaux_tc" else g.max(-1).values
        keep = torch.zeros_like(group, dtype=torch.bool).scatter_(1, group.topk(c["topk_group"], -1).indices, True)
        choice = g.masked_fill(~keep[..., None], float("-inf")).flatten(1)
    return choice.topk(K, -1).indices.sort(-1).values


class Model:
    """w: dict of parameters (require grad), bias: dict of router biases by layer."""

    def __init__(self, c, w, bias, sdpa=False):
        self.c, self.w, self.bias, self.sdpa, self.routing = c, w, bias, sdpa, []
        self.tables = {}

    def constants(self, T, dtype):
        """cos, sin, causal mask of T positions; kept."""
        if (T, dtype) not in self.tables:
            mask = torch.ones(T, T, dtype=torch.bool).triu(1)
            self.tables[T, dtype] = (*rope_tables(self.c, T, dtype), mask)
        return self.tables[T, dtype]

    def lin(self, x, name):
        return F.linear(x, self.w[name])

    def attention(self, x, i, cos, sin, mask):
        c, w = self.c, self.w
        B, T, _ = x.shape
        H, n, r, v, kl = (c["num_attention_heads"], c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"],
                          c["kv_lora_rank"])
        a = f"model.layers.{i}.self_attn."
        if c.get("q_lora_rank"):
            q = self.lin(rms(self.lin(x, a + "q_a_proj.weight"), w[a + "q_a_layernorm.weight"], 1e-6), a + "q_b_proj.weight")
        else:
            q = self.lin(x, a + "q_proj.weight")
        q = q.view(B, T, H, n + r).transpose(1, 2)
        lat = self.lin(x, a + "kv_a_proj_with_mqa.weight")
        kv = self.lin(rms(lat[..., :kl], w[a + "kv_a_layernorm.weight"], 1e-6), a + "kv_b_proj.weight")
        kv = kv.view(B, T, H, n + v).transpose(1, 2)
        kr = rotate(lat[..., kl:], cos, sin)[:, None].expand(B, H, T, r)
        q = torch.cat((q[..., :n], rotate(q[..., n:], cos, sin)), -1)
        k = torch.cat((kv[..., :n], kr), -1)
        scale = (n + r) ** -0.5
        s = c.get("rope_scaling")
        if s and s.get("mscale_all_dim"):
            scale *= mscale(s["factor"], s["mscale_all_dim"]) ** 2
        if self.sdpa:
            o = F.scaled_dot_product_attention(q, k, kv[..., n:], is_causal=True, scale=scale)
            return self.lin(o.transpose(1, 2).reshape(B, T, H * v), a + "o_proj.weight")
        scores = q @ k.transpose(-1, -2) * scale
        p = scores.masked_fill(mask, float("-inf")).softmax(-1)
        return self.lin((p @ kv[..., n:]).transpose(1, 2).reshape(B, T, H * v), a + "o_proj.weight")

    def swiglu(self, x, prefix):
        g, u = self.lin(x, prefix + "gate_proj.weight"), self.lin(x, prefix + "up_proj.weight")
        return self.lin(F.silu(g) * u, prefix + "down_proj.weight")

    def moe(self, x, i):
        c = self.c
        p = f"model.layers.{i}.mlp."
        flat = x.reshape(-1, x.shape[-1])
        logits = self.lin(flat, p + "gate.weight")
        sigmoid = c.get("topk_method") == "noaux_tc"
        s = logits.sigmoid() if sigmoid else logits.softmax(-1)
        ids = route(c, s.detach(), self.bias.get(i))
        self.routing.append(ids)
        g = s.gather(1, ids)
        if sigmoid and c.get("norm_topk_prob"):
            g = g / (g.sum(-1, keepdim=True) + 1e-20)
        g = g * c.get("routed_scaling_factor", 1.0)
        out = torch.zeros_like(flat)
        for e in range(c["n_routed_experts"]):
            t, k = (ids == e).nonzero(as_tuple=True)
            if len(t):
                out.index_add_(0, t, (self.swiglu(flat[t], f"{p}experts.{e}.") * g[t, k, None]).to(out.dtype))
        if c.get("n_shared_experts"):
            out = out + self.swiglu(flat, p + "shared_experts.")
        return out.view_as(x)

    def forward(self, tokens):
        c, w = self.c, self.w
        self.routing = []
        x = F.embedding(tokens, w["model.embed_tokens.weight"])
        cos, sin, mask = self.constants(tokens.shape[1], x.dtype)
        eps = c["rms_norm_eps"]
        for i in range(c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            x = x + self.attention(rms(x, w[p + "input_layernorm.weight"], eps), i, cos, sin, mask)
            y = rms(x, w[p + "post_attention_layernorm.weight"], eps)
            x = x + (self.moe(y, i) if is_moe(c, i) else self.swiglu(y, p + "mlp."))
        return self.lin(rms(x, w["model.norm.weight"], eps), "lm_head.weight")


def token_loss(logits, tokens):
    B, T, V = logits.shape
    return F.cross_entropy(logits[:, :-1].reshape(-1, V), tokens[:, 1:].reshape(-1), reduction="none").view(B, T - 1)
