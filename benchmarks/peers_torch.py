"""One round of local gradient steps in PyTorch with autograd on tokens, clients batched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def bind(
    kernel: Any,
    value: Any,
    data: tuple[Any, Any],
    *,
    ridges: tuple[float, float],
    step: float,
    local_steps: int,
) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """Return a call that runs one round: tokens (C, S, n, d), targets (C, S, n, m)."""
    tokens, targets = (torch.from_numpy(array) for array in data)
    clients, count, length = tokens.shape[:3]
    start = [torch.tensor(a).repeat(clients, 1, 1) for a in (kernel, value)]

    def objective(b: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Sum over clients of F_i, so that one backward pass gives every client's gradient."""
        memory = tokens.transpose(2, 3) @ (tokens @ v[:, None]) / length
        error = (tokens @ b[:, None]) @ memory - targets
        data_loss = 0.5 * (error * error).sum() / (count * length)
        return data_loss + 0.5 * ridges[0] * (v * v).sum() + 0.5 * ridges[1] * (b * b).sum()

    def call() -> tuple[torch.Tensor, torch.Tensor]:
        b, v = (a.clone().requires_grad_(True) for a in start)
        for _ in range(local_steps):
            slopes = torch.autograd.grad(objective(b, v), (b, v))
            with torch.no_grad():
                b -= step * slopes[0]
                v -= step * slopes[1]
        return b.detach(), v.detach()

    return call
