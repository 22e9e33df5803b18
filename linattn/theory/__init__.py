"""The analytical side: closed forms and bounds. Never imports `linattn.federated`."""

from linattn.theory.frozen import FrozenStage, frozen_stage

__all__ = ["FrozenStage", "frozen_stage"]
