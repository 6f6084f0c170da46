# SPDX-License-Identifier: Apache-2.0
"""What PyTorch reaches on the same device: copies, cuBLAS products, causal attention by cuDNN and by flash.

One JSON object a line on standard output, times as the median of 5 rounds. Called by bench/gpu/run."""
import json
import statistics
import time

import torch
from torch.nn.functional import scaled_dot_product_attention

DEVICE = "cuda"


def timed(call):
    """Median seconds of one call."""
    call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    once = max(time.perf_counter() - start, 1e-6)
    calls = max(1, int(0.1 / once))
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
        rounds.append((time.perf_counter() - start) / calls)
    return statistics.median(rounds)


def emit(**fields):
    print(json.dumps({"section": "pytorch", "version": torch.__version__, **fields}), flush=True)


def copies():
    x = torch.randn(1 << 29, device=DEVICE)
    y = torch.empty_like(x)
    seconds = timed(lambda: y.copy_(x))
    emit(name="device copy", seconds=seconds, gbytes_per_s=2 * x.numel() * 4 / seconds * 1e-9)


def products():
    torch.backends.cuda.matmul.allow_tf32 = False
    for dtype in (torch.bfloat16, torch.float32):
        for m, n, k in ((8192, 8192, 8192), (4096, 4096, 4096)):
            a = torch.randn(m, k, device=DEVICE).mul(0.05).to(dtype)
            b = torch.randn(n, k, device=DEVICE).mul(0.05).to(dtype)
            seconds = timed(lambda: torch.matmul(a, b.t()))
            emit(name="matmul", dtype=str(dtype), m=m, n=n, k=k, seconds=seconds, tflops=2 * m * n * k / seconds * 1e-12)


def attention():
    """Head sizes of MLA in training: 192 for scores, 128 for values; 2 sequences of 4096, 16 heads."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    batch, heads, length = 2, 16, 4096
    q, k = (torch.randn(batch, heads, length, 192, device=DEVICE, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    v = torch.randn(batch, heads, length, 128, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
    flops = batch * heads * length * length * (192 + 128)  # causal half of 2 (192 + 128) T^2
    for name, backend in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
        try:
            with sdpa_kernel(backend):
                forward = timed(lambda: scaled_dot_product_attention(q, k, v, is_causal=True))
                out = scaled_dot_product_attention(q, k, v, is_causal=True)
                grad = torch.randn_like(out)
                backward = timed(lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True))
        except RuntimeError as error:
            emit(name="attention", backend=name, skipped=str(error).splitlines()[0])
            continue
        emit(name="attention", backend=name, forward_seconds=forward, forward_tflops=flops / forward * 1e-12,
             backward_seconds=backward, backward_tflops=2.5 * flops / backward * 1e-12)


copies()
products()
attention()
