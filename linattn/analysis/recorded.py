"""Runs of which every local step is kept, for those who read them step by step."""

from __future__ import annotations

from linattn.federated.driver import RoundDriver
from linattn.federated.method import Method
from linattn.federated.methods import fed_avg
from linattn.federated.settings import Settings
from linattn.oracles.protocol import oracle_of
from linattn.types import Params, Problem


def recorded_driver(
    problem: Problem, params: Params, settings: Settings, method: Method | None = None
) -> RoundDriver:
    """Return the driver of a run that hands back every local step; default FedAvg."""
    oracle = oracle_of(problem, params)
    return RoundDriver(method or fed_avg(), problem, oracle, params, settings, record=True)
