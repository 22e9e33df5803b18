"""Jobs: every stored array says what its kind promises, on problems of a second or less."""

import msgspec
import numpy as np
import pytest

import linattn as la
from linattn.analysis.regret import has_tradeoff, relative_regret
from linattn.data.worlds import InitialSpec, ProblemSpec, consistent_targets
from linattn.experiments.store import read_result
from scripts import put, run, simulation

PROBLEM = ProblemSpec(num_clients=3, sequences_per_client=8, num_tokens=6, dim=3, num_outputs=2,
                      value_heterogeneity=1.0, covariate_heterogeneity=0.3)  # fmt: skip
FACTORED = InitialSpec(kernel="factored", rank=2, num_heads=2, value="normal")
STARTS = pytest.mark.parametrize("initial", [InitialSpec(), FACTORED], ids=["merged", "factored"])
READOUTS = pytest.mark.parametrize("readout", ["token", "mean", "last"])


REGIME = {"horizon": 3.6, "local_lr": 0.05, "local_steps": 6}
"""Twelve rounds."""


def made(name, **fields):
    """Spec and dataset of a small run."""
    usual = {"warmup_rounds": 3, "local_steps": (1, 6)} if name == "frozen_stage" else REGIME
    return run(name, **{"problem": PROBLEM, **usual, **fields})


@STARTS
def test_bias_drift(initial):
    _, found = made("bias_drift", num_starts=3, initial=initial)
    assert dict(found.sizes) == {"warmup": 13}
    parts = found.kernel_bias + found.value_transient + found.value_floor + found.value_cross
    np.testing.assert_allclose(found.objective, found.reference + parts, rtol=1e-10)
    np.testing.assert_allclose(found.objective_identical, found.objective_synchronized, rtol=1e-10)
    assert found.objective.sel(warmup=found.warmup_star) == found.objective.min()
    assert found.reference <= float(found.profile.min())
    assert not found.reference_lower_bound > found.reference * (1 + 1e-9)  # NaN: no bound
    np.testing.assert_allclose(found.objective_predicted, found.objective, rtol=0.02)
    assert 0 < found.num_impulses <= 24


def test_one_local_step_has_no_drift_and_is_a_control_of_its_own():
    _, apart = made("bias_drift", num_starts=2)
    _, one = made("bias_drift", num_starts=2, local_steps=1, horizon=0.6)
    np.testing.assert_array_equal(one.objective, apart.objective_one_step)
    np.testing.assert_allclose(one.profile, one.profile_synchronized, rtol=1e-10)
    assert "objective_identical" not in one


def test_frozen_rounds_are_unstable_from_the_critical_step_on():
    spec, found = made("bias_drift", num_starts=2)
    problem, start = spec.prepared()
    step = float(found.critical_step[0])
    assert float(found.safe_step[0]) <= step
    for factor, stable in ((0.999, True), (1.001, False)):
        stage = la.frozen_stage(problem, start, local_steps=6, local_lr=factor * step)
        assert stage.stable is stable
    assert found.critical_step.isnull().sum() == 11  # one length in ten has one


def test_sampled_runs_have_an_expectation_and_no_controls():
    _, found = made("bias_drift", num_starts=2, participation=0.67)
    parts = found.kernel_bias + found.value_transient + found.value_floor + found.value_cross
    total = found.reference + parts + found.value_noise
    np.testing.assert_allclose(found.objective, total, rtol=1e-10)
    assert (found.value_noise[:-1] > 0.0).all()
    assert "objective_predicted" not in found


@READOUTS
@STARTS
def test_frozen_stage(initial, readout):
    problem = msgspec.structs.replace(PROBLEM, readout=readout)
    _, found = made("frozen_stage", problem=problem, initial=initial, settle_rounds=30)
    assert dict(found.sizes) == {"local_steps": 2, "round": 41, "control": 3}
    assert found.stable.all()
    assert float(found.relative_error.max()) < 1e-12
    np.testing.assert_allclose(found.objective_simulated, found.objective_closed, rtol=1e-12)
    np.testing.assert_allclose(found.bias_simulated, found.bias_closed, rtol=1e-9, atol=1e-13)
    assert float(found.null_bias.max()) < 1e-13
    assert float(found.null_simulated.max()) < 1e-12
    assert found.bias[0] == 0.0
    assert found.bias[1] > 1e-6
    assert (found.bias <= found.bias_bound).all()


@READOUTS
def test_consistent_targets_leave_no_client_gradient(readout):
    problem = msgspec.structs.replace(PROBLEM, readout=readout).make(0)
    params = InitialSpec().make(problem, 0)
    control = consistent_targets(problem, params)
    stage = la.frozen_stage(control, params, local_steps=5, local_lr=0.05)
    gradients = np.abs(stage.gradients_at_minimizer).max()
    assert gradients < 1e-13 * np.abs(stage.linears).max()
    assert la.Joint(control).value(params.replace(value=stage.minimizer)) > 0.0
    spread = np.abs(stage.hessians - stage.hessian).max()
    assert spread > 1e-3  # the A_i do differ


@STARTS
def test_certificate(initial):
    spec, found = made("certificate", num_starts=2, initial=initial)
    assert dict(found.sizes) == {"round": 13}
    assert found.violations.sum() == 0
    assert (found.certificate >= found.profile - 1e-12).all()
    assert float(np.abs(found.residual).max()) < 1e-12
    np.testing.assert_array_equal(found.curvature_kind, 2 if initial is FACTORED else 0)
    np.testing.assert_array_equal(found.diverged_round, -1)
    problem, params = spec.prepared()
    assert found.argmin_certificate == int(found.certificate.values.argmin())
    held = la.run(la.fed_frozen(warmup_rounds=4), problem, params, rounds=spec.rounds,
                  metrics=("objective",), **spec.settings())  # fmt: skip
    np.testing.assert_allclose(found.objective.sel(round=4), held.columns["objective"][-1])


@STARTS
def test_freeze_rule(initial):
    spec, found = made("freeze_rule", initial=initial)
    assert dict(found.sizes) == {"warmup": 13, "rule": 3}
    assert found.rule.values.tolist() == list(spec.rules)
    for rule in spec.rules:
        one = found.sel(rule=rule)
        stopped = int(one.rule_round)
        assert 1 <= stopped <= spec.rounds
        np.testing.assert_allclose(one.rule_objective, one.objective.sel(warmup=stopped))
        assert one.rule_excess >= -1e-12
    size = spec.prepared()[1].layout.size
    full = size * spec.rounds * spec.problem.num_clients
    np.testing.assert_array_equal(found.never_floats_up, full)


def test_rules_can_be_chosen():
    _, found = made("freeze_rule", rules=("certified",))
    assert found.rule.values.tolist() == ["certified"]


def test_regret_is_zero_at_the_best_length_and_one_without_freezing():
    held = simulation("bias_drift").spec(problem=PROBLEM).prepared()
    options = {"rounds": 2, "local_steps": 2, "local_lr": 0.05}
    table = la.bias_drift(*held, warmup_lengths=[0, 1, 2], reference=0.0, **options)
    table["objective"].values[:] = [9.0, 1.0, 2.0]
    assert has_tradeoff(table)
    assert [relative_regret(table, f) for f in (1.0, 2.0, 1.5)] == [0.0, 1.0, 0.5]
    table["objective"].values[:] = [9.0, 1.0, 1.0 + 7e-3]  # less than 1e-3 of the gain of 8
    assert not has_tradeoff(table)
    assert np.isnan(relative_regret(table, 1.0))
    table["objective"].values[:] = [9.0, 1.0, np.inf]
    assert has_tradeoff(table)
    assert relative_regret(table, 5.0) == 0.0
    assert relative_regret(table, np.inf) == 1.0  # the rule never froze and diverged as well


@pytest.mark.parametrize("name", ["bias_drift", "certificate", "freeze_rule", "frozen_stage"])
def test_divergence_is_a_result(name, tmp_path):
    far = {"local_lr": 5.0} if name == "frozen_stage" else {"local_lr": 5.0, "horizon": 360.0}
    spec, found = made(name, **far)
    stored = read_result(put(tmp_path, simulation(name), spec, found))
    assert stored.spec == msgspec.json.decode(msgspec.json.encode(spec))
    assert set(stored.dataset.variables) == set(found.variables)
    assert not stored.dataset.stable.all()


@pytest.mark.parametrize("name", ["bias_drift", "certificate", "freeze_rule", "second_stage"])
def test_equal_drift_numbers_at_equal_horizons_lead_alike(name):
    """What the presets vary is s; η moves the best warm-up time by little."""
    for preset in simulation(name).presets:
        for spec in simulation(name).specs(preset):
            assert abs(spec.rounds * spec.local_steps * spec.local_lr - spec.horizon) < 1.1
            assert spec.drift == 0.5 * spec.local_lr * (spec.local_steps - 1)
            assert spec.lengths()[-1] == spec.rounds
            assert len(spec.lengths()) <= 201


def test_rules_must_be_distinct():
    with pytest.raises(ValueError, match="rules must be distinct"):
        simulation("freeze_rule").spec_from({"rules": ["profile", "profile"]})


def test_stored_claims_hold_and_a_changed_number_violates_them():
    _, found = made("frozen_stage", settle_rounds=9)
    checks = simulation("frozen_stage").checks
    assert {check([found]).status for check in checks} == {"holds"}
    broken = found.assign(bias_simulated=found.bias_simulated + 1e-6)
    assert "violated" in {check([broken]).status for check in checks}
