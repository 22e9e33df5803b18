"""Claims hold on random instances; each bound is refused, or violated, without its assumption."""

import numpy as np
import pytest
from bridge import average_stale_absentees

import linattn as la
from linattn.claims import Claim, Condition, Instance, Measurement, get_claim
from linattn.claims.instances import random_instance
from linattn.claims.record import LONG_BUDGET, judge
from linattn.claims.table import check_instance, summarize
from linattn.theory.bias import bound_with

INSTANCES = 30
FAST = [claim for claim in la.claims() if claim.share == 1.0]


@pytest.fixture(scope="module")
def instances():
    return [random_instance(2, index) for index in range(INSTANCES)]


@pytest.mark.parametrize("claim", FAST, ids=lambda claim: claim.id)
def test_claim_holds_on_random_instances(claim, instances):
    verdicts = [check_instance(claim, instance) for instance in instances]
    states = [verdict.status for verdict in verdicts]
    assert "violated" not in states
    expected = "reported" if claim.kind == "report" else "holds"
    assert states.count(expected) >= INSTANCES // 4
    if claim.kind in ("upper", "lower"):
        judged = [v.tightness for v in verdicts if v.status != "refused"]
        tight = np.array([t for t in judged if np.isfinite(t)])
        assert (tight >= 1 - 1e-9).all()


@pytest.mark.parametrize("name", ["C15", "C15 any point"])
def test_lower_bound_holds(name, instances):
    small = sorted(instances, key=lambda i: i.problem.dim)[:6]
    states = [check_instance(get_claim(name), instance).status for instance in small]
    assert "violated" not in states
    assert "holds" in states


def test_table_is_complete():
    ids = [claim.id for claim in la.claims()]
    assert len(set(ids)) == len(ids)
    wanted = {"C1", "C2", "C3", "C3f", "C4", "C4f", "C7", "C8", "C9", "C10", "C11", "C12", "C15"}
    assert wanted <= set(ids)
    assert any(i.startswith("C13") for i in ids)


def test_unknown_claim_names_the_nearest(small_problem):
    with pytest.raises(ValueError, match="did you mean 'C3f'"):
        la.check("C3ff", small_problem)


def test_check_runs_on_any_problem(small_problem, small_factored):
    assert la.check("C4", small_problem).status == "holds"
    verdict = la.check("C4", small_problem, small_factored)
    assert verdict.status == "refused"
    assert verdict.unmet[0].name == "merged kernel"


def test_a_run_beyond_floating_point_is_refused(small_problem, small_params):
    def overflows(instance):
        raise FloatingPointError("the value-block Hessian is not positive definite")

    claim = Claim("X", "test", "upper", "test", overflows)
    verdict = check_instance(claim, Instance(small_problem, small_params))
    assert verdict.status == "refused"
    assert "floating-point range" in verdict.unmet[0].name


def test_a_singular_round_map_is_refused():
    """Far beyond stability I − M̂ is singular in floating-point numbers."""
    drawn = random_instance(5, 5)
    stage = la.frozen_stage(drawn.problem, drawn.params, local_steps=1, local_lr=1.0)
    wild = drawn._replace(local_lr=4.0 / stage.largest_step_curvature, local_steps=50)
    verdict = check_instance(get_claim("C8 first order"), wild)
    assert verdict.status == "refused"
    assert "floating-point range" in verdict.unmet[0].name


def test_terms_beyond_floating_point_are_refused(small_problem, small_params):
    def measure(instance):
        return Measurement(float("inf"), float("inf"), float("inf"))

    claim = Claim("X", "test", "upper", "test", measure)
    verdict = check_instance(claim, Instance(small_problem, small_params))
    assert verdict.status == "refused"
    assert verdict.unmet[0].name == "terms within floating-point range"


def test_report_is_never_judged(small_problem):
    assert la.check("C13 profile", small_problem, rounds=4, local_lr=0.05).status == "reported"


def test_summary_takes_the_worst(instances):
    (summary,) = summarize(instances=4, seed=2, chosen=[get_claim("C1")])
    assert summary.status == "holds"
    assert summary.worst.tightness == max(v.tightness for v in summary.verdicts)


# --- how two numbers become a verdict


def claim_of(kind):
    return Claim("X", "test", kind, "test", lambda instance: None)


@pytest.mark.parametrize(
    ("kind", "measured", "bound", "status", "tightness"),
    [
        ("upper", 1.0, 2.0, "holds", 2.0),
        ("upper", 2.0, 1.0, "violated", 0.5),
        ("lower", 2.0, 1.0, "holds", 2.0),
        ("lower", 1.0, 2.0, "violated", 0.5),
        ("identity", 1.0, 1.0 + 1e-13, "holds", None),
        ("identity", 1.0, 1.0 + 1e-11, "violated", None),
        ("report", 1.0, 5.0, "reported", None),
        ("upper", float("nan"), 1.0, "violated", None),
    ],
)
def test_judgement(kind, measured, bound, status, tightness):
    verdict = judge(claim_of(kind), Measurement(measured, bound, 1.0))
    assert verdict.status == status
    if tightness is not None:
        assert verdict.tightness == pytest.approx(tightness)


def test_tightness_is_undefined_where_nothing_is_measured():
    verdict = judge(claim_of("upper"), Measurement(1e-13, 1.0, 1.0))
    assert verdict.status == "holds"
    assert np.isnan(verdict.tightness)


def test_unmet_condition_refuses_unless_forced():
    bad = Measurement(2.0, 1.0, 1.0, conditions=(Condition("needed", -0.5),))
    assert judge(claim_of("upper"), bad).status == "refused"
    assert judge(claim_of("upper"), bad, force=True).status == "violated"
    nothing = Measurement(float("nan"), 1.0, 1.0, conditions=bad.conditions)
    assert judge(claim_of("upper"), nothing, force=True).status == "refused"


def test_budgets_are_within_the_contract():
    assert LONG_BUDGET <= 1e-10


# --- broken assumptions: remove one, and the two numbers part


def broken(claim, instance):
    return check_instance(get_claim(claim), instance).status


def test_gap_needs_the_ridge_in_the_hessian(small_problem, small_params, monkeypatch):
    from linattn.objectives.population import Population

    honest = Population.gap

    def without_ridge(self, params, system):
        lag = params.value.reshape(system.minimizer.shape) - system.minimizer
        return honest(self, params, system) - 0.5 * self.value_ridge * float(np.vdot(lag, lag))

    monkeypatch.setattr(Population, "gap", without_ridge)
    assert broken("C1", Instance(small_problem, small_params)) == "violated"


def test_envelope_needs_the_minimizer(small_problem, small_params, monkeypatch):
    honest = la.KernelProfile.minimizer
    monkeypatch.setattr(la.KernelProfile, "minimizer", lambda self, p: 0.9 * honest(self, p))
    assert broken("C2", Instance(small_problem, small_params)) == "violated"
    assert broken("C3", Instance(small_problem, small_params)) == "violated"


def test_stale_bound_needs_the_ridge_positive(small_problem, small_params, monkeypatch):
    from linattn.claims import c03_increment

    monkeypatch.setattr(c03_increment, "_resolve_gain", lambda *arguments: 0.0)
    assert broken("C3f", Instance(small_problem, small_params)) == "violated"
    assert broken("C3", Instance(small_problem, small_params)) == "violated"


def test_stale_absentees_break_the_certificate(monkeypatch):
    """Averaging over all clients, absentees at their old values, is not the virtual iterate."""
    problem = la.synthetic_problem(
        num_clients=4, sequences_per_client=6, num_tokens=5, dim=3, num_outputs=2,
        value_heterogeneity=1.0, value_ridge=0.05, kernel_ridge=0.01,
    )  # fmt: skip
    params = la.initial_params(problem, value="normal")
    instance = Instance(problem, params, 4, 8, 0.05, None, 0.5)
    assert broken("C4 additive", instance) == "holds"
    average_stale_absentees(monkeypatch, problem)
    assert broken("C4 additive", instance) == "violated"


@pytest.mark.parametrize("claim", ["C7", "C8"])
def test_closed_form_needs_stability(small_problem, small_params, claim):
    top = np.linalg.eigvalsh(la.ValueBlock(small_problem, small_params).hessian)[-1]
    unstable = Instance(small_problem, small_params, 3, 3, 4.0 / top)
    assert broken(claim, unstable) == "refused"


def test_closed_form_needs_full_batches(small_problem, small_params, monkeypatch):
    from linattn.claims import c07_frozen

    honest = c07_frozen.run
    monkeypatch.setattr(
        c07_frozen, "run", lambda *a, **k: honest(*a, **k, batch_size=2, participation=0.5)
    )
    assert broken("C7", Instance(small_problem, small_params, 3, 5, 0.02)) == "violated"
    assert broken("C8", Instance(small_problem, small_params, 3, 5, 0.02)) == "violated"
    monkeypatch.undo()
    assert broken("C7", Instance(small_problem, small_params, 3, 5, 0.02)) == "holds"


def test_bias_bound_needs_a_small_step(small_problem, small_params):
    stage = la.frozen_stage(small_problem, small_params, local_steps=2, local_lr=1.0)
    rate = 2.5 / stage.largest_step_curvature
    assert broken("C8 bound", Instance(small_problem, small_params, 3, 2, rate)) == "refused"


def test_bias_bound_is_violated_beyond_its_step():
    """Forced past ηλ_max < 2 the Lipschitz constant is too small.

    Two scalar clients with A = 1 and A = a: s(x) = (1 − (1 − ηx)^E)/(ηxE) grows without bound in
    x > 2/η while the constant η(E − 1)/2 does not.
    """
    worst = 0.0
    for largest in (2.5, 3.0, 4.0, 6.0):
        stage = la.FrozenStage(
            weights=np.array([0.5, 0.5]),
            hessians=np.array([1.0, largest]).reshape(2, 1, 1),
            linears=np.array([1.0, -1.0]).reshape(2, 1, 1),
            start=np.zeros((1, 1, 1)),
            local_steps=3,
            local_lr=1.0,
        )
        assert stage.bias_bound is None
        forced = bound_with(stage, 0.5 * stage.local_lr * 2)
        worst = max(worst, float(np.linalg.norm(stage.bias)) / forced)
    assert worst > 1.0


def test_decomposition_needs_the_cross_term(small_problem, small_params, monkeypatch):
    from linattn.theory import FrozenStage

    instance = Instance(small_problem, small_params, 4, 6, 0.02)
    assert broken("C9", instance) == "holds"
    honest = FrozenStage.drift_parts
    monkeypatch.setattr(
        FrozenStage, "drift_parts", lambda self, rounds: (*honest(self, rounds)[:2], 0.0)
    )
    assert broken("C9", instance) == "violated"


def test_mismatch_needs_the_factor_covariance(small_problem, small_factored, monkeypatch):
    """Taking Q̄K̄ᵀ for the mean of the kernels drops the covariance of query and key."""
    from linattn.claims import c10_mismatch

    instance = Instance(small_problem, small_factored, 1, 5, 0.02)
    assert broken("C10", instance) == "holds"
    honest = c10_mismatch.aggregation_mismatch

    def without_covariance(*arguments):
        found = honest(*arguments)
        return found._replace(query_key=np.zeros_like(found.query_key))

    monkeypatch.setattr(c10_mismatch, "aggregation_mismatch", without_covariance)
    assert broken("C10", instance) == "violated"


def test_euler_needs_the_ridges(small_problem, small_params, small_factored, monkeypatch):
    from linattn.objectives.population import Population

    honest = Population.chain

    def without_ridge(self, params, kernel_gradient):
        size = params.layout.size - params.value.size
        return honest(self, params, kernel_gradient) - self.kernel_ridge * params.flat[:size]

    monkeypatch.setattr(Population, "chain", without_ridge)
    assert broken("C11", Instance(small_problem, small_params)) == "violated"


def test_gauge_is_not_a_symmetry_of_the_ridge(small_problem, small_factored, monkeypatch):
    from linattn.claims import c11_symmetry

    assert broken("C12", Instance(small_problem, small_factored)) == "holds"
    monkeypatch.setattr(
        c11_symmetry,
        "_data_loss",
        lambda instance, params: la.Joint(instance.problem).value(params),
    )
    assert broken("C12", Instance(small_problem, small_factored)) == "violated"


def test_lower_bound_needs_the_clip(small_problem, small_params, monkeypatch):
    from linattn.claims import c15_reference

    honest = c15_reference.dual_lower_bound
    monkeypatch.setattr(
        c15_reference, "dual_lower_bound", lambda held, b, v, tau: honest(held, b, v, 1e6 * tau)
    )
    wide = la.initial_params(small_problem, num_heads=6, value="minimizer", seed=1)
    assert broken("C15 any point", Instance(small_problem, wide)) == "violated"
