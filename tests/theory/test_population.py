"""C16 against brute force, against the twin, by differences, and as a limit of samples."""

import numpy as np
import pytest
import reference as ref

import linattn as la
from linattn.claims import Instance, get_claim
from linattn.claims.table import check_instance
from linattn.theory.population import TokenLaw, population_limit, synthetic_limit, token_covariance
from linattn.theory.wick import psi, psi_by_pairings

SIZES = {"num_tokens": 4, "dim": 3, "num_outputs": 2, "value_ridge": 0.05, "kernel_ridge": 0.01,
         "value_heterogeneity": 0.8, "covariate_heterogeneity": 0.4, "kernel_heterogeneity": 0.3,
         "noise": 0.2, "num_clients": 3}  # fmt: skip


def covariance(rng, dim):
    root = rng.normal(size=(dim, dim))
    return root @ root.T + 0.1 * np.eye(dim)


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_closed_formula_against_pairings_of_every_index(tokens):
    """d = 2, every token triple, every index, every pairing: to 1e-12."""
    rng = np.random.default_rng(tokens)
    s, p, q = covariance(rng, 2), rng.normal(size=(2, 2)), rng.normal(size=(2, 2))
    brute = ref.psi_wick(s, p, q, tokens)
    scale = np.abs(brute).max()
    assert np.abs(psi(s, p, q, tokens) - brute).max() <= 1e-12 * scale
    assert np.abs(psi_by_pairings(s, p, q, tokens) - brute).max() <= 1e-12 * scale


@pytest.mark.parametrize("dim", [3, 5])
def test_pairings_and_closed_formula_agree_in_higher_dimension(dim):
    rng = np.random.default_rng(dim)
    s, p, q = covariance(rng, dim), rng.normal(size=(dim, dim)), rng.normal(size=(dim, dim))
    brute = psi_by_pairings(s, p, q, 7)
    assert np.abs(psi(s, p, q, 7) - brute).max() <= 1e-12 * np.abs(brute).max()


@pytest.mark.parametrize("readout", ["token", "mean", "last"])
def test_blocks_are_the_twins(readout):
    rng = np.random.default_rng(4)
    s = covariance(rng, 2)
    kernels, teacher = rng.normal(size=(2, 2, 2)), rng.normal(size=(3, 2, 2))
    value, teacher_value = rng.normal(size=(2, 2, 2)), rng.normal(size=(3, 2, 2))
    law = TokenLaw(s, 5, teacher, teacher_value, 0.3, readout)
    hessian, linear, energy = ref.population_blocks(
        s, kernels, teacher, teacher_value, 5, readout=readout, noise=0.3
    )
    assert np.allclose(law.system(kernels)[0], hessian, rtol=1e-12)
    assert np.allclose(law.system(kernels)[1], linear, rtol=1e-12)
    assert law.energy == pytest.approx(energy, rel=1e-12)
    bend = ref.population_curvature_apply(s, value, kernels, 5, 0.0, readout)
    silent = TokenLaw(s, 5, 0 * teacher, teacher_value, 0.3, readout)
    assert np.allclose(silent.kernel_gradient(kernels, value), bend, rtol=1e-11)


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("readout", ["token", "mean", "last"])
def test_gradient_against_differences(kind, readout):
    limit = synthetic_limit(**SIZES, readout=readout, weights=[0.5, 0.3, 0.2], seed=1)
    rng = np.random.default_rng(0)
    shape = (2, 3, 3) if kind == "merged" else (2, 3, 2)
    blocks = [rng.normal(size=shape) for _ in range(1 if kind == "merged" else 2)]
    build = la.Params.merged if kind == "merged" else la.Params.factored
    params = build(*blocks, np.zeros((2, 3, 2)))
    direction = rng.normal(size=params.layout.size)
    direction[params.layout.slices["value"]] = 0.0
    step = 1e-4
    ends = [limit.value(la.Params(params.layout, params.flat + s * direction))
            for s in (-2 * step, -step, step, 2 * step)]  # fmt: skip
    slope = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * step)
    assert limit.gradient(params).flat @ direction == pytest.approx(slope, rel=1e-6)


def test_frozen_stage_is_the_recursion_of_the_population():
    limit = synthetic_limit(**SIZES, seed=2)
    params = la.Params.merged(np.eye(3), np.ones((3, 2)))
    hessians, linears = limit.client_systems(params)
    eta = 0.5 / np.linalg.eigvalsh(hessians).max()
    stage = limit.frozen_stage(params, local_steps=4, local_lr=eta)
    places = np.stack([params.value[0]] * 3)
    for _ in range(4):
        places = places - eta * (hessians @ places - linears)
    assert np.allclose(stage.after(1)[0], places.mean(axis=0), rtol=1e-12)
    assert np.allclose(stage.minimizer, limit.minimizer(params), rtol=1e-10)


ONE = SIZES | {"num_clients": 1, "num_tokens": 8, "covariate_heterogeneity": 0.2}


def sampled_error(sequences, seed):
    """|P_S − P| and ‖∇P_S − ∇P‖ at one kernel."""
    problem = la.synthetic_problem(**ONE, sequences_per_client=sequences, seed=seed)
    limit = synthetic_limit(**ONE, seed=seed)
    params = la.Params.merged(np.eye(3) / 2, np.zeros((3, 2)))
    held = la.KernelProfile(problem)
    slopes = held.gradient(params).flat - limit.gradient(params).flat
    return held.value(params) - limit.value(params), np.linalg.norm(slopes)


def test_samples_approach_the_limit_like_the_root_of_their_number():
    """RMS over 32 seeds, S = 2⁶ … 2¹²: slopes of P and its gradient in [−0.6, −0.4]."""
    counts = 2 ** np.arange(6, 13)
    errors = np.array([[sampled_error(int(s), seed) for seed in range(32)] for s in counts])
    rms = np.sqrt(np.mean(errors**2, axis=1))
    slopes = np.polyfit(np.log(counts), np.log(rms), 1)[0]
    assert (slopes <= -0.4).all()
    assert (slopes >= -0.6).all()


@pytest.mark.parametrize("readout", ["mean", "last"])
def test_other_readouts_have_their_own_limit(readout):
    problem = la.synthetic_problem(**SIZES, sequences_per_client=6000, readout=readout, seed=3)
    limit = synthetic_limit(**SIZES, readout=readout, seed=3)
    params = la.Params.merged(np.eye(3) / 2, np.zeros((3, 2)))
    assert la.KernelProfile(problem).value(params) == pytest.approx(limit.value(params), rel=0.1)


def test_synthetic_problem_shares_its_draws_with_the_limit():
    """The empirical second moment of many tokens is the law's covariance."""
    problem = la.synthetic_problem(**SIZES, sequences_per_client=4000, seed=5)
    limit = synthetic_limit(**SIZES, seed=5)
    for i, law in enumerate(limit.laws):
        gram = problem.statistics.gram[problem.client(i)].mean(axis=0)
        assert np.allclose(gram, law.covariance, atol=0.05 * np.linalg.norm(law.covariance))


def test_tokens_with_a_mean_are_refused():
    tokens = np.random.default_rng(0).normal(size=(4000, 5, 2))
    assert np.allclose(token_covariance(tokens), np.eye(2), atol=0.05)
    with pytest.raises(ValueError, match="mean zero"):
        token_covariance(tokens + 0.5)


def test_bad_laws_are_refused():
    teacher = (np.eye(2)[None], np.ones((1, 2, 1)))
    with pytest.raises(ValueError, match="covariance"):
        TokenLaw(-np.eye(2), 3, *teacher)
    with pytest.raises(ValueError, match="covariance"):
        TokenLaw(np.array([[1.0, 0.5], [0.0, 1.0]]), 3, *teacher)
    with pytest.raises(ValueError, match="num_tokens"):
        TokenLaw(np.eye(2), 0, *teacher)
    with pytest.raises(ValueError, match="at least one client"):
        population_limit([], value_ridge=0.1, kernel_ridge=0.1)
    with pytest.raises(ValueError, match="more than their"):
        token_covariance(np.ones((2, 2)))


@pytest.mark.parametrize("position", range(6))
def test_claim_needs_every_pairing(small_problem, small_params, monkeypatch, position):
    from linattn.theory import wick

    instance = Instance(small_problem, small_params)
    assert check_instance(get_claim("C16"), instance).status == "holds"
    honest, dropped = wick._pairings, 2 * position
    monkeypatch.setattr(
        wick,
        "_pairings",
        lambda items: [p for k, p in enumerate(honest(items)) if len(items) < 6 or k != dropped],
    )
    assert check_instance(get_claim("C16"), instance).status == "violated"
