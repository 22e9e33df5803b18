"""The plain script that the sweep is compared with: PyTorch, every warm-up length a run of its own.

No statistics, no shared warm-up, no closed form: tokens, autograd, a loop over rounds and local
steps, clients batched (not a Python loop over clients).
"""

from __future__ import annotations

from typing import Any

import torch


def run(
    tokens: Any,
    targets: Any,
    kernel: Any,
    value: Any,
    *,
    ridges: tuple[float, float],
    step: float,
    local_steps: int,
    rounds: int,
    warmup: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return kernel and value after `warmup` full rounds and rounds − warmup frozen ones."""
    x, y = torch.from_numpy(tokens), torch.from_numpy(targets)
    clients, count, length = x.shape[:3]
    b, v = torch.tensor(kernel), torch.tensor(value)
    for t in range(rounds):
        own_b = b.repeat(clients, 1, 1).requires_grad_(t < warmup)
        own_v = v.repeat(clients, 1, 1).requires_grad_(True)
        trained = [own_b, own_v] if t < warmup else [own_v]
        for _ in range(local_steps):
            memory = x.transpose(2, 3) @ (x @ own_v[:, None]) / length
            error = (x @ own_b[:, None]) @ memory - y
            loss = 0.5 * (error * error).sum() / (count * length)
            loss = loss + 0.5 * ridges[0] * (own_v * own_v).sum()
            loss = loss + 0.5 * ridges[1] * (own_b * own_b).sum()
            slopes = torch.autograd.grad(loss, trained)
            with torch.no_grad():
                for block, slope in zip(trained, slopes, strict=True):
                    block -= step * slope
        b, v = own_b.detach().mean(dim=0), own_v.detach().mean(dim=0)
    return b, v
