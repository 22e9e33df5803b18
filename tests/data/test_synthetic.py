"""Synthetic problems: the contract's recipe written out again, paired streams, heterogeneity."""

import numpy as np
import pytest
import reference as ref

import linattn as la
from linattn.streams import stream

BASE = {"num_clients": 3, "sequences_per_client": 4, "num_tokens": 5, "dim": 3, "num_outputs": 2,
        "value_ridge": 0.1, "kernel_ridge": 0.2, "seed": 11}  # fmt: skip
LEVELS = {"covariate_heterogeneity": 0.4, "kernel_heterogeneity": 0.7, "value_heterogeneity": 1.3}


def by_contract(readout, *, num_heads=1, noise=0.0, shared=False, a=0.0, b=0.0, v=0.0):
    """The twin's instance, drawn as contract.md says."""
    seed, d, m, root = BASE["seed"], BASE["dim"], BASE["num_outputs"], np.sqrt(BASE["dim"])
    common = stream(seed, "teacher")
    kernel = common.standard_normal((num_heads, d, d)) / root
    value = common.standard_normal((num_heads, d, m)) / root
    clients = []
    for i in range(BASE["num_clients"]):
        owner = 0 if shared else i
        W = np.eye(d) + a * stream(seed, "covariate", owner).standard_normal((d, d)) / root
        shape = (BASE["sequences_per_client"], BASE["num_tokens"], d)
        z = stream(seed, "tokens", owner).standard_normal(shape)
        B = kernel + b * stream(seed, "kernel", i).standard_normal(kernel.shape) / root
        V = value + v * stream(seed, "value", i).standard_normal(value.shape) / root
        tokens = [np.array([W @ x for x in sequence]) for sequence in z]
        clean = np.array([ref.predict(X, B, V, readout) for X in tokens])
        targets = clean + noise * stream(seed, "noise", i).standard_normal(clean.shape)
        clients.append(list(zip(tokens, targets, strict=True)))
    return clients


@pytest.mark.parametrize("readout", ref.READOUTS)
@pytest.mark.parametrize("num_heads", [1, 2])
@pytest.mark.parametrize("shared", [False, True])
def test_the_recipe_of_the_contract(readout, num_heads, shared):
    options = {"readout": readout, "num_heads": num_heads, "noise": 0.3, "shared_tokens": shared}
    problem = la.synthetic_problem(**BASE, **LEVELS, **options)
    expected = by_contract(
        readout, num_heads=num_heads, noise=0.3, shared=shared, a=0.4, b=0.7, v=1.3
    )
    pairs = [pair for client in expected for pair in client]
    crosses = problem.statistics.cross_moments()
    for s, (X, Y) in enumerate(pairs):
        assert np.allclose(problem.statistics.gram[s], X.T @ X / len(X), rtol=1e-12)
        U = ref.queries(X, readout)
        assert np.allclose(crosses[s], U.T @ Y / len(U), rtol=1e-11, atol=1e-12)
        assert problem.statistics.energy[s] == pytest.approx(np.sum(Y**2) / len(U), rel=1e-12)


def test_weights_are_equal_because_sizes_are():
    assert np.allclose(la.synthetic_problem(**BASE).weights, 1 / 3)
    weights = [0.5, 0.3, 0.2]
    assert la.synthetic_problem(**BASE, weights=weights).weights.tolist() == weights


def test_adding_clients_leaves_the_others_alone():
    few = la.synthetic_problem(**BASE, **LEVELS, noise=0.1)
    more = la.synthetic_problem(**(BASE | {"num_clients": 5}), **LEVELS, noise=0.1)
    count = few.num_sequences
    assert np.array_equal(few.statistics.gram, more.statistics.gram[:count])
    assert np.array_equal(few.statistics.cross, more.statistics.cross[:count])


def test_heterogeneity_of_targets_leaves_the_tokens_alone():
    plain = la.synthetic_problem(**BASE)
    other = la.synthetic_problem(**BASE, value_heterogeneity=1.0, noise=0.5)
    assert np.array_equal(plain.statistics.gram, other.statistics.gram)
    assert not np.allclose(plain.statistics.cross, other.statistics.cross)


def test_shared_tokens_make_all_client_hessians_equal(small_params):
    problem = la.synthetic_problem(**BASE, **LEVELS, shared_tokens=True)
    parts = [la.ValueBlock(problem.subset([i]), small_params).hessian for i in range(3)]
    assert np.array_equal(parts[0], parts[1])
    assert np.array_equal(parts[0], parts[2])


def test_zero_heterogeneity_is_the_same_distribution_not_the_same_data():
    problem = la.synthetic_problem(**BASE)
    first, second = (problem.statistics.gram[problem.client(i)] for i in range(2))
    assert not np.allclose(first, second)
    # Without noise and heterogeneity one teacher explains everything.
    teacher = stream(BASE["seed"], "teacher")
    B = teacher.standard_normal((1, 3, 3)) / np.sqrt(3)
    V = teacher.standard_normal((1, 3, 2)) / np.sqrt(3)
    params = la.Params.merged(B, V)
    ridge = 0.5 * 0.1 * np.sum(V**2) + 0.5 * 0.2 * np.sum(B**2)
    assert la.Joint(problem).value(params) == pytest.approx(ridge, rel=1e-12)


def test_seeds_differ():
    other = la.synthetic_problem(**(BASE | {"seed": 12}))
    assert not np.allclose(other.statistics.gram, la.synthetic_problem(**BASE).statistics.gram)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_clients": 0}, "num_clients must be an integer >= 1, got 0"),
        ({"sequences_per_client": 1.5}, "sequences_per_client must be an integer"),
        ({"num_tokens": True}, "num_tokens must be an integer"),
        ({"dim": -1}, "dim must be an integer >= 1"),
        ({"num_outputs": "2"}, "num_outputs must be an integer"),
        ({"num_heads": 0}, "num_heads must be an integer"),
        ({"noise": -0.1}, "noise must be >= 0, got -0.1"),
        (
            {"covariate_heterogeneity": np.inf},
            "heterogeneity must be a finite number >= 0, got inf",
        ),
        ({"kernel_heterogeneity": -1}, "kernel_heterogeneity must be >= 0"),
        ({"value_heterogeneity": None}, "value_heterogeneity must be a number"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"readout": "all"}, "readout must be one of 'token', 'mean', 'last', got 'all'"),
        ({"readout": "queries"}, "readout must be one of 'token', 'mean', 'last', got 'queries'"),
        ({"value_ridge": 0}, "value_ridge must be > 0"),
        ({"weights": "same"}, "weights must be None, 'equal' or an array"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        la.synthetic_problem(**(BASE | options))
