"""What a method says of itself, so that theorems can tell whether they speak of it."""

from __future__ import annotations

from typing import NamedTuple


class Nature(NamedTuple):
    """Where a method leaves plain averaging of plain gradient steps, which is all False.

    Attributes
    ----------
    proximal : bool
        Local steps add ν(w − anchor) to the gradient.
    corrected : bool
        Local steps add something else to ∇F_i, or follow the gradient of another objective.
    masked : bool
        Some participants train some of the blocks only, in some rounds.
    sampled : bool
        The method chooses the participants of some rounds itself.
    personal : bool
        Clients start from models of their own, or keep blocks of their own.
    memory : bool
        Rounds depend on earlier ones through more than the server's parameters.
    normalized : bool
        Moves of clients are divided by their numbers of local steps.
    server_step : bool
        The server does not go to the mean: step, momentum, or a rule of its own.
    adaptive : bool
        Its step differs between entries.
    """

    proximal: bool = False
    corrected: bool = False
    masked: bool = False
    sampled: bool = False
    personal: bool = False
    memory: bool = False
    normalized: bool = False
    server_step: bool = False
    adaptive: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the method is FedAvg."""
        return not any(self)

    @property
    def deviations(self) -> tuple[str, ...]:
        """Names of all that is True."""
        return tuple(name for name, on in zip(self._fields, self, strict=True) if on)
