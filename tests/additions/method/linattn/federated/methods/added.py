"""FedAvg that adds half the distance from the server's parameters to every gradient."""

from __future__ import annotations

from typing import Any

from linattn.federated.method import Direction, Method
from linattn.federated.nature import Nature


def added() -> Method:
    """Return FedProx of weight one half."""

    def direction(*_: Any) -> Direction:
        return Direction(0.5)

    return Method("added", direction=direction, declared=Nature(proximal=True))
