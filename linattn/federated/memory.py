"""What a continued run needs besides parameters and round, and whether it is its own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from linattn.federated.accounting import Traffic
from linattn.federated.settings import Settings


class Memory(NamedTuple):
    """Server and client memories, what clients hold, the freezing, and whose all that is.

    Attributes
    ----------
    server : object
    clients : dict of int to object
    traffic : Traffic
    freeze_round : int or None
    origin : mapping of str to value
        Method, next round and settings of the run; a run with others is refused.
    """

    server: Any
    clients: dict[int, Any]
    traffic: Traffic
    freeze_round: int | None
    origin: Mapping[str, Any] = MappingProxyType({})

    def restore(self) -> Memory:
        """Independent copies, so that one memory may start several runs."""
        return self._replace(clients=dict(self.clients), traffic=self.traffic.copy())


class ClientMemories(dict[int, Any]):
    """Memories by client, which can be what they were at the last `mark` again."""

    def __init__(self, held: Mapping[int, Any] = MappingProxyType({})) -> None:
        super().__init__(held)
        self.mark()

    def mark(self) -> None:
        """Begin changes that `revert` can take back."""
        self._before: dict[int, tuple[Any, ...]] = {}

    def __setitem__(self, client: int, memory: Any) -> None:
        self._before.setdefault(client, (self[client],) if client in self else ())
        super().__setitem__(client, memory)

    def revert(self) -> None:
        """Forget everything since `mark`."""
        for client, held in self._before.items():
            if held:
                super().__setitem__(client, held[0])
            else:
                del self[client]
        self.mark()


def origin_of(method: str, settings: Settings, t: int) -> dict[str, Any]:
    """Return what a run must share with the one it continues, at round t.

    A step schedule is not among it: arrays and functions cannot be compared with what was run.
    """
    steps = np.asarray(settings.local_steps).tolist()
    step = {} if callable(settings.local_lr) else {"local_lr": settings.local_lr}
    return {
        "method": method,
        "start_round": t,
        "local_steps": steps,
        **step,
        "batch_size": settings.batch_size,
        "participation": settings.sampling.participation,
        "sampling": settings.sampling.scheme,
        "stragglers": settings.stragglers,
        "seed": settings.seed,
    }


def check_continues(memory: Any, traffic: Traffic, wanted: Mapping[str, Any]) -> Memory:
    """Return the memory of the run that is continued.

    Raises
    ------
    ValueError
        If it is of another method, round, setting or model, or no memory at all.
    """
    if not isinstance(memory, Memory):
        raise ValueError(f"memory must be the `memory` of a result, got {type(memory).__name__}.")
    if memory.traffic.layout != traffic.layout:
        raise ValueError("memory must come from a run of the same model, but its blocks differ.")
    for name, value in wanted.items():
        held = memory.origin.get(name, value)
        if held != value:
            raise ValueError(
                f"memory must come from a run with the same {name}, got {held!r} then and "
                f"{value!r} now; continue it with the same, or leave memory out."
            )
    return memory.restore()
