"""C6 against the twin, and what its constants are sharp for."""

import bridge
import numpy as np
import pytest
import reference as ref

import linattn as la
from linattn.analysis.trajectory import client_gradients, local_paths
from linattn.theory.consensus import (
    client_hessian,
    consensus_chain,
    frozen_consensus_bound,
    frozen_contraction_bound,
    secant_constants,
    segment_constant,
)


def equal_quadratics(curvature, *, spread=1.0, local_steps=3):
    """Two scalar clients with the same A and different C."""
    return la.FrozenStage(
        weights=np.array([0.5, 0.5]),
        hessians=np.full((2, 1, 1), curvature),
        linears=spread * np.array([1.0, -1.0]).reshape(2, 1, 1),
        start=np.zeros((1, 1, 1)),
        local_steps=local_steps,
        local_lr=1.0,
    )


def distance(stage):
    """D_E by explicit steps, and ζ (constant: the clients share A)."""
    places = np.zeros(2)
    for _ in range(stage.local_steps):
        slopes = stage.hessians[:, 0, 0] * places - stage.linears[:, 0, 0]
        places = places - stage.local_lr * slopes
    return float(np.std(places)), float(np.std(stage.linears))


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("seed", range(3))
def test_recursion_is_the_twins(seed, kind):
    _, inst, theta, value, problem, params = bridge.make(seed, kind=kind)
    eta = ref.safe_step(inst, theta)
    run = ref.fedavg(inst, theta, value, rounds=1, local_steps=4, local_lr=eta)
    (path,) = local_paths(problem, params, rounds=1, local_steps=4, local_lr=eta)
    at_mean = client_gradients(problem, params, path.participants, path.mean[:-1])
    spreads, zetas = path.spread(path.places), path.spread(at_mean)
    spreads[0] = 0.0
    constants = secant_constants(path.weights, path.full_gradients - at_mean, spreads[:-1])
    for e, step in enumerate(run.steps):
        sides = ref.consensus_step(inst, step, eta)
        assert spreads[e + 1] == pytest.approx(sides["left"], rel=1e-9)
        assert e == 0 or constants[e] == pytest.approx(sides["secant"], rel=1e-7)
        upper = (1 + eta * constants[e]) * spreads[e] + eta * zetas[e]
        assert upper == pytest.approx(sides["upper"], rel=1e-9)
    chain = consensus_chain(eta, constants, zetas)
    assert chain[0] == pytest.approx(spreads[1], rel=1e-10)
    assert (spreads[1:] <= chain * (1 + 1e-12)).all()


@pytest.mark.parametrize("seed", range(4))
def test_client_hessian_against_the_twin(seed):
    _, inst, theta, value, problem, params = bridge.make(seed, num_heads=1 + seed % 2)
    expected = ref.joint_hessian(inst, theta, value, 1)
    assert bridge.relative_error(client_hessian(problem, 1, params), expected) < 1e-9


def test_segment_bound_covers_the_segment():
    rng, _, _, _, problem, params = bridge.make(3, num_heads=2)
    end = bridge.moved(params, bridge.direction_like(rng, params), 1.0)
    bound = segment_constant(problem, 0, params, end)
    for t in np.linspace(0.0, 1.0, 11):
        place = la.Params(params.layout, (1 - t) * params.flat + t * end.flat)
        largest = np.abs(np.linalg.eigvalsh(client_hessian(problem, 0, place))).max()
        assert largest <= bound
    at_end = np.abs(np.linalg.eigvalsh(client_hessian(problem, 0, end))).max()
    assert segment_constant(problem, 0, end, end) == pytest.approx(at_end, rel=1e-10)


@pytest.mark.parametrize("reach", [-1.0, -0.97])
def test_segment_bound_is_the_largest_bernstein_coefficient(reach):
    """The middle coefficient from the Hessian at t = ¼, on a segment past the origin."""
    _, _, _, _, problem, params = bridge.make(3, num_heads=2)
    end = la.Params(params.layout, reach * params.flat)
    quarter = la.Params(params.layout, (0.75 + 0.25 * reach) * params.flat)
    first, last, between = (client_hessian(problem, 0, p) for p in (params, end, quarter))
    middle = (16.0 * between - 9.0 * first - last) / 6.0
    norms = [np.abs(np.linalg.eigvalsh(m)).max() for m in (first, middle, last)]
    assert norms[1] == max(norms)
    assert segment_constant(problem, 0, params, end) == pytest.approx(norms[1], rel=1e-10)


def test_chain_is_unrolled_from_zero():
    """b ← (1 + ηL)b + ηζ by hand."""
    found = consensus_chain(0.5, np.array([7.0, 2.0, 4.0]), np.array([4.0, 1.0, 0.0]))
    assert found.tolist() == [2.0, 2.0 * 2.0 + 0.5, 3.0 * 4.5]


def test_segment_bound_needs_merged_kernels():
    _, _, _, _, problem, params = bridge.make(0, kind="factored")
    with pytest.raises(ValueError, match="merged"):
        client_hessian(problem, 0, params)


@pytest.mark.parametrize("seed", range(6))
def test_frozen_bounds_are_the_twins(seed):
    _, inst, theta, value, problem, params = bridge.make(seed)
    options = {"local_steps": 6, "step_size": ref.safe_step(inst, theta)}
    sides = ref.frozen_consensus(inst, theta, value, **options)
    stage = la.frozen_stage(problem, params, local_steps=6, local_lr=options["step_size"])
    linear = frozen_consensus_bound(stage, sides["zeta"])
    contracting = frozen_contraction_bound(stage, sides["zeta"])
    assert linear == pytest.approx(sides["upper"], rel=1e-12)
    assert contracting == pytest.approx(sides["upper_small_step"], rel=1e-9)
    assert sides["left"] <= contracting * (1 + 1e-12) <= linear * (1 + 1e-9)


def test_contracting_bound_is_attained_by_equal_clients():
    stage = equal_quadratics(0.5, local_steps=7)
    measured, zeta = distance(stage)
    assert frozen_contraction_bound(stage, zeta) == pytest.approx(measured, rel=1e-12)


def test_linear_bound_is_attained_at_vanishing_curvature():
    stage = equal_quadratics(1e-9, local_steps=5)
    measured, zeta = distance(stage)
    assert frozen_consensus_bound(stage, zeta) == pytest.approx(measured, rel=1e-7)


def test_bounds_beyond_their_step_are_refused_and_fail():
    stage = equal_quadratics(3.2)
    measured, zeta = distance(stage)
    assert frozen_consensus_bound(stage, zeta) is None
    assert measured > frozen_consensus_bound(stage, zeta, force=True)
    assert frozen_contraction_bound(equal_quadratics(1.5), zeta) is None
    assert frozen_consensus_bound(equal_quadratics(2.0), zeta) is not None
    assert frozen_contraction_bound(equal_quadratics(1.0), zeta) is not None
