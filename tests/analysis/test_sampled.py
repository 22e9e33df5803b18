"""Kernel bias of sampled warm-ups in parts: sums, brute force over all draws, and what κ undoes."""

from itertools import product

import numpy as np
import pytest
from method_cases import case

import linattn as la
from linattn.analysis.sampled import kernel_terms, warmup_draws
from linattn.federated.settings import check_settings
from linattn.types import Params

LENGTHS = [0, 1, 3]


def settings(step, **more):
    return check_settings(rounds=3, local_steps=4, local_lr=step, **more)


def plain(problem, params, step):
    """Everybody on full batches, and centralized steps, at the lengths."""
    (full,) = warmup_draws(problem, params, settings(step), num_draws=5)
    central = la.CentralizedDescent(problem, params, step).at([4 * t for t in LENGTHS])
    return [full[t] for t in LENGTHS], central


@pytest.mark.parametrize("kind", ["merged", "factored"])
def test_parts_add_up_and_vanish_where_nothing_is_drawn(kind):
    problem, params, step = case(kind)
    full, central = plain(problem, params, step)
    profile = la.KernelProfile(problem)
    alone = kernel_terms(problem, [full], full=full, central=central, reference=0.1)
    for zeros in (alone.shift, alone.spread, alone.standard_error):
        np.testing.assert_allclose(zeros, 0.0, atol=1e-14)
    draws = warmup_draws(problem, params, settings(step, participation=0.5), num_draws=4)
    assert [len(path) for path in draws] == [4] * 4
    at = [[path[t] for t in LENGTHS] for path in draws]
    found = kernel_terms(problem, at, full=full, central=central, reference=0.1)
    measured = np.array([[profile.value(p) for p in path] for path in at])
    np.testing.assert_allclose(found.kernel_bias, measured.mean(axis=0) - 0.1, rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, measured.std(axis=0, ddof=1) / 2, atol=1e-14)
    np.testing.assert_allclose(found.unreached + 0.1, [profile.value(p) for p in central])
    assert found.standard_error[2] > 0
    assert np.isnan(found.undone[0])  # nobody has drifted before the first round


def test_draws_are_runs_of_their_seeds():
    problem, params, step = case("merged")
    shared = {"local_steps": 4, "local_lr": step, "participation": 0.5, "batch_size": 2}
    draws = warmup_draws(problem, params, check_settings(rounds=3, seed=7, **shared), num_draws=2)
    for k, path in enumerate(draws):
        run = la.run(la.fed_avg(), problem, params, rounds=3, seed=7 + k, record_params=True,
                     **shared)  # fmt: skip
        assert all(np.array_equal(a.flat, b.flat) for a, b in zip(path, run.path, strict=True))


def test_a_divergence_is_infinite_and_not_an_error():
    problem, params, _ = case("merged")
    wild = check_settings(rounds=40, local_steps=4, local_lr=50.0, participation=0.5)
    draws = [[path[-1]] for path in warmup_draws(problem, params, wild, num_draws=2)]
    found = kernel_terms(problem, draws, full=[params], central=[params], reference=0.0)
    assert not np.isfinite(found.kernel_bias[0])


def test_two_draws_estimate_the_parts_of_all_draws():
    """The mean over all pairs of draws is the exact shift and spread, to the order of the step."""
    problem, params, step = case("merged", seed=1)
    step *= 0.02
    full, central = plain(problem, params, step)
    profile = la.KernelProfile(problem)

    def ends(chosen):
        """One of four clients in each of three rounds."""
        at = params
        for client in chosen:
            alone = problem.subset([client])
            at = la.run(la.fed_avg(), alone, at, rounds=1, local_steps=4, local_lr=step).params
        return at

    every = [ends(chosen) for chosen in product(range(4), repeat=3)]
    values = np.array([profile.value(at) for at in every])
    mean = Params(params.layout, np.mean([at.flat for at in every], axis=0))
    spread = values.mean() - profile.value(mean)
    shift = profile.value(mean) - profile.value(full[-1])
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, len(every), size=(400, 2))
    terms = [
        kernel_terms(problem, [[every[i]], [every[j]]], full=full[-1:], central=central[-1:],
                     reference=0.0)
        for i, j in pairs
    ]  # fmt: skip
    estimates = np.array([[t.spread[0], t.kernel_bias[0] - values.mean()] for t in terms])
    error = estimates.std(axis=0) / 20
    assert abs(estimates[:, 0].mean() - spread) < 4 * error[0]
    assert spread > 8 * error[0]  # a spread half as large would be noticed
    assert abs(np.mean([t.shift[0] for t in terms]) - shift) < 4 * error.max()


# -------------------------------------------------------- what sampling undoes of the drift


def isotropic_targets(*, ridge, noise):
    """Clients on the same tokens whose targets differ by the corners of a regular simplex."""
    rng = np.random.default_rng(2)
    tokens = rng.standard_normal((3, 4, 2))
    teacher = la.Params.merged(rng.standard_normal((1, 2, 2)), rng.standard_normal((1, 2, 1)))
    common = la.predict(teacher, tokens) + noise * rng.standard_normal((3, 4, 1))
    count = common.size + 1
    corners = np.linalg.svd(np.eye(count) - 1 / count)[0][:, :-1] * np.sqrt(count)
    clients = [(tokens, common + 0.3 * corner.reshape(common.shape)) for corner in corners]
    problem = la.problem_from_tokens(clients, value_ridge=ridge, kernel_ridge=ridge)
    at = la.reference_value(problem, like=teacher, num_starts=4).params
    return problem, at.replace(value=la.ValueBlock(problem, at).minimizer())


def test_sampling_undoes_the_share_kappa_of_the_drift():
    """H⁻¹·½∇³F:Σ of one client drawn is ½H⁻¹c, for a bilinear model and isotropic differences."""
    problem, at = isotropic_targets(ridge=1e-3, noise=0.1)
    joint = la.Joint(problem)
    clients = [la.Joint(problem.subset([i])) for i in range(problem.num_clients)]

    def gradient(objective, flat):
        return objective.gradient(Params(at.layout, flat)).flat

    def second(objective, direction, step=1e-3):
        """Even and odd part of the change of a gradient along a direction: D³F[v,v]/2, Hv."""
        up, down = (gradient(objective, at.flat + s * step * direction) for s in (1, -1))
        return (up + down - 2 * gradient(objective, at.flat)) / (2 * step**2), (up - down) / (
            2 * step
        )

    units = np.eye(at.flat.size)
    hessian = np.array([second(joint, unit)[1] for unit in units])
    slopes = np.array([gradient(c, at.flat) for c in clients])
    apart = slopes - slopes.mean(axis=0)
    covariance = apart.T @ apart / len(apart)
    drift = np.mean([second(c, a)[1] for c, a in zip(clients, apart, strict=True)], axis=0)
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    turned = vectors.T @ covariance @ vectors
    scatter = vectors @ (turned / np.add.outer(values, values)) @ vectors.T
    sizes, modes = np.linalg.eigh(scatter)
    bent = sum(size * second(joint, mode)[0] for size, mode in zip(sizes, modes.T, strict=True))
    # Per unit of ηE: the drift is ½H⁻¹c, the shift of one client a round −H⁻¹·½∇³F:Σ.
    drifted, shifted = np.linalg.solve(hessian, 0.5 * drift), -np.linalg.solve(hessian, bent)
    undone = -shifted @ drifted / (drifted @ drifted)
    assert undone == pytest.approx(1.0, abs=0.03)
    assert np.linalg.norm(shifted + drifted) < 0.1 * np.linalg.norm(drifted)


# ------------------------------------------------------------------- where it cannot help


def test_identical_clients_leave_nothing_to_undo():
    problem, params, step = case("merged")
    pooled = la.pool(problem)
    full, central = plain(pooled, params, step)
    draws = warmup_draws(pooled, params, settings(step, participation=0.25), num_draws=3)
    at = [[path[t] for t in LENGTHS] for path in draws]
    found = kernel_terms(pooled, at, full=full, central=central, reference=0.0)
    for part in (found.drift, found.shift, found.spread):
        np.testing.assert_allclose(part, 0.0, atol=1e-12)


def test_one_local_step_has_no_drift_and_sampling_only_hurts():
    problem, params, step = case("merged")
    one = check_settings(rounds=300, local_steps=1, local_lr=step, participation=0.25)
    everybody = one._replace(sampling=one.sampling._replace(participation=1.0))
    (full,) = warmup_draws(problem, params, everybody, num_draws=1)
    central = la.CentralizedDescent(problem, params, step).at([300])
    draws = [path[-1:] for path in warmup_draws(problem, params, one, num_draws=16)]
    found = kernel_terms(problem, draws, full=full[-1:], central=central, reference=0.0)
    assert abs(found.drift[0]) < 1e-12
    assert found.shift[0] + found.spread[0] > 4 * found.standard_error[0]
