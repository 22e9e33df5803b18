"""Steps, starts and ridges beyond all measure: runs that diverge are results, no crashes."""

import pytest

from linattn.experiments.validation import dotted_fields
from linattn.experiments.worker import Outcome, encoded
from scripts import simulation

SMALL = {"num_clients": 3, "sequences_per_client": 6, "num_tokens": 5, "dim": 3, "num_outputs": 2}


@pytest.mark.parametrize("change", [{"local_lr": 3.0}, {"local_lr": 1e100}, {"initial.scale": 1e9}])
@pytest.mark.parametrize(
    "name",
    ["bias_drift", "bounds", "certificate", "frozen_stage", "methods", "orders", "selection"],
)
def test_divergence_is_a_result(name, change):
    held = simulation(name)
    small = {f"problem.{key}": value for key, value in SMALL.items()}
    if "local_lr" in change and "local_lr" not in dotted_fields(held.spec):  # of a safe step
        change = {"factors": [100.0 * change["local_lr"]]}
    for task in held.tasks("tiny", small | change)[:2]:
        answer = encoded(task)
        assert not isinstance(answer, Outcome), answer.trace
