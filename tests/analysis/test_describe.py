"""What a problem is like: spreads against the twin, suspicions one by one, the texts."""

import re
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import reference as ref
from bridge import make
from method_cases import deep_case
from worlds import world

import linattn as la
from linattn.analysis.heterogeneity import covariance_spread, target_spread

RIDGES = {"value_ridge": 0.1, "kernel_ridge": 0.1}
WORLD = {"num_clients": 6, "sequences_per_client": 40, "num_tokens": 8, **RIDGES}


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("readout", ["token", "mean", ref.own_queries])
def test_spreads_are_those_of_the_twin(kind, readout):
    _, inst, theta, _, problem, params = make(5, kind, readout=readout)
    p = inst.weights
    grams = [np.mean([X.T @ X / len(X) for X, _ in client], axis=0) for client in inst.clients]
    mean = np.tensordot(p, grams, 1)
    apart = np.sqrt(sum(w * np.sum((g - mean) ** 2) for w, g in zip(p, grams, strict=True)))
    assert covariance_spread(problem).observed == pytest.approx(apart / np.linalg.norm(mean))
    star = ref.minimizer(inst, theta)
    slopes = [ref.client_gradient(inst, i, theta, star)[1] for i in range(len(p))]
    wanted = np.sqrt(sum(w * np.sum(g**2) for w, g in zip(p, slopes, strict=True)))
    linear = sum(w * ref.client_linear(inst, i, theta) for i, w in enumerate(p))
    size = np.linalg.norm(linear)
    assert target_spread(problem, params).observed == pytest.approx(wanted / size, rel=1e-9)


def test_chance_is_what_shuffled_clients_show():
    """Over random deals of the same sequences, the mean square of the spread is chance squared."""
    problem = world(**WORLD)
    params = la.initial_params(problem)
    rng = np.random.default_rng(0)
    weights = np.array([0.3, 0.05, 0.25, 0.1, 0.2, 0.1])
    observed, chance = [], []
    for _ in range(300):
        order = rng.permutation(problem.num_sequences)
        dealt = problem.rearranged(order, problem.offsets.copy(), weights.copy())
        for spread in (covariance_spread(dealt), target_spread(dealt, params)):
            observed.append(spread.observed**2)
            chance.append(spread.chance**2)
    for k in range(2):
        assert np.mean(observed[k::2]) == pytest.approx(np.mean(chance[k::2]), rel=0.1)


def test_heterogeneity_is_seen_where_it_is():
    plain = la.describe(world(**WORLD))
    turned = la.describe(world(**WORLD, covariate_heterogeneity=0.5))
    wanted = la.describe(world(**WORLD, value_heterogeneity=1.0))
    for spread in (plain.covariance_heterogeneity, wanted.covariance_heterogeneity):
        assert spread.observed < 1.5 * spread.chance
    assert turned.covariance_heterogeneity.observed > 3 * turned.covariance_heterogeneity.chance
    assert wanted.target_heterogeneity.observed > 2 * wanted.target_heterogeneity.chance


def test_clients_of_one_sequence_have_no_chance_level():
    alone = world(**WORLD | {"sequences_per_client": 1})
    spread = covariance_spread(alone)
    assert spread.observed > 0
    assert np.isnan(spread.chance)


def test_numbers_and_texts(small_problem, small_params):
    found = la.describe(small_problem, small_params, local_lr=0.02, local_steps=11)
    assert found.safe_step == la.safe_step(small_problem, small_params)
    assert found.drift_number == pytest.approx(0.1)
    hessian = la.ValueBlock(small_problem, small_params).hessian
    assert found.value_condition == pytest.approx(np.linalg.cond(hessian))
    gram = np.tensordot(small_problem.sequence_weights, small_problem.statistics.gram, 1)
    assert found.token_condition == pytest.approx(np.linalg.cond(gram))
    assert found.token_scale == pytest.approx(np.trace(gram) / small_problem.dim)
    text, page = str(found), found._repr_html_()
    for name, value in found.rows():
        assert f"{name} " in text
        assert value in text
        assert f"<td>{value}</td>" in page
    assert "drift number" in text
    assert repr(found).startswith("Description(Problem(")
    few = la.describe(small_problem, small_params)
    assert few.drift_number is None
    assert "drift number" not in str(few)


def problem(change=lambda x, y: (x, y), clients=3, **options):
    rng = np.random.default_rng(1)
    data = [change(rng.normal(size=(8, 5, 3)), rng.normal(size=(8, 5, 2))) for _ in range(clients)]
    return la.problem_from_tokens(data, **(RIDGES | options))


def replaced(k, value):
    def change(x, y):
        x[..., k] = value(x)
        return x, y

    return change


@pytest.mark.parametrize(
    ("held", "sentence"),
    [
        (problem(lambda x, y: (1e6 * x, y)), "tokens have a mean square of .*e.11"),
        (problem(lambda x, y: (x, 1e-5 * y)), "targets have a mean square of .*e-10"),
        (problem(lambda x, y: (x, 0 * y)), "all targets are zero"),
        (problem(replaced(1, lambda x: 0.0)), "channels 1 are zero in every token"),
        (problem(replaced(1, lambda x: 2e4 * x[..., 0] ** 2)), "channel 1 is .* as large as"),
        (problem(replaced(2, lambda x: -3 * x[..., 0])), "channels 0 and 2 are the same up to"),
        (
            problem(replaced(2, lambda x: x[..., 0] + x[..., 1] * (1 + 1e-6 * x[..., 0]))),
            "channels are nearly linearly dependent",
        ),
        (problem(lambda x, y: (x[:3], y[:3])), "3 of 3 clients hold fewer than 5 sequences: 0, 1"),
        (problem(weights=[0.8, 0.1, 0.1]), "client 0 has 80% of the weight"),
        (la.pool(problem()), "clients 0 and 1 and 2 hold the same sequences"),
        (
            problem(lambda x, y: (np.repeat(x[:4], 2, 0), np.repeat(y[:4], 2, 0))),
            "12 of 24 sequences are copies",
        ),
        (problem(kernel_ridge=0.0), "kernel_ridge is 0"),
        (problem(value_ridge=9.0, kernel_ridge=9.0), "so strong that B = 0 is the best merged"),
    ],
)
def test_what_looks_wrong_is_said(held, sentence):
    found = la.describe(held).warnings
    assert any(re.search(sentence, said) for said in found), found


def test_nothing_looks_wrong_with_a_plain_problem():
    assert la.describe(problem()).warnings == ()
    assert "nothing looks wrong" in str(la.describe(problem()))
    assert "Nothing looks wrong" in la.describe(problem())._repr_html_()


def test_collapse_is_said_exactly_where_it_is():
    """B = 0 is the best merged kernel where λμ reaches σ², σ = ‖Σp mean K ⊗ G‖₂ (theory 2)."""
    held = problem()
    cross, gram = held.statistics.cross, held.statistics.gram
    tensor = np.einsum("s,sio,sjk->ijko", held.sequence_weights, cross, gram)
    edge = np.linalg.norm(tensor.reshape(9, 6), 2)
    for factor, collapsed in ((1.001, True), (0.999, False)):
        ridge = {"value_ridge": factor * edge, "kernel_ridge": factor * edge}
        said = la.describe(problem(**ridge)).warnings
        assert any("B = 0" in sentence for sentence in said) == collapsed


def test_steps_are_judged():
    held = problem()
    start = la.initial_params(held)
    safe = la.safe_step(held, start)
    assert la.describe(held, start, local_lr=safe).warnings == ()
    stable = 2.0 / max(
        np.linalg.eigvalsh(la.ValueBlock(held.subset([i]), start).hessian)[-1] for i in range(3)
    )
    said = la.describe(held, start, local_lr=1.01 * stable).warnings
    assert "is beyond 2/λ_max" in said[-1]
    assert "its local steps grow" in said[-1]


def test_numbers_beyond_doubles_are_said_not_raised():
    held = problem(lambda x, y: (1e6 * x[..., [0, 1, 1]], y))
    found = la.describe(held, local_lr=0.1, local_steps=5)
    assert np.isnan(found.safe_step)
    assert "nothing can be computed at the start" in found.warnings[-1]
    assert "nan" in str(found)


@pytest.mark.parametrize("scale", [1e-150, 1e-60, 1e60, 1e150])
def test_no_scale_of_the_tokens_is_an_error(scale):
    found = la.describe(problem(lambda x, y: (scale * x, y)), local_lr=0.1)
    assert "tokens have a mean square of" in found.warnings[0]
    assert "scale" in str(found)


def test_the_prediction_looks_as_far_as_it_says(small_problem, small_params):
    found = la.describe(small_problem, small_params, local_lr=0.02, local_steps=5)
    rounds = found.trade_off.attrs["rounds"]
    assert 500 <= 0.02 * 5 * rounds / found.safe_step <= 500 + 0.02 * 5 / found.safe_step
    same = la.predict_trade_off(
        small_problem, small_params, rounds=rounds, local_steps=5, local_lr=0.02
    )
    assert found.trade_off.identical(same)
    assert f"{same.attrs['warmup_star']} of {rounds} rounds" in str(found)
    assert la.describe(small_problem, small_params, local_lr=0.02).trade_off is None
    free = problem(kernel_ridge=0.0)
    assert la.describe(free, local_lr=0.02, local_steps=5).trade_off is None


def test_a_prediction_that_is_not_trusted_says_why(monkeypatch, small_problem, small_params):
    verdict = {"warmup_star": None, "rounds": 50, "trusted": False, "reason": "no length is stable"}
    table = SimpleNamespace(attrs=verdict)
    room = import_module("linattn.analysis.describe")
    monkeypatch.setattr(room, "predict_trade_off", lambda *args, **options: table)
    found = la.describe(small_problem, small_params, local_lr=0.02, local_steps=5)
    assert "none of 50 rounds, not to be trusted: no length is stable" in str(found)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"local_lr": 0.0}, ValueError, "local_lr must be > 0"),
        ({"params": 5}, TypeError, "params must be Params, got int"),
        ({"local_steps": 0}, ValueError, "local_steps must be an integer >= 1"),
        (
            {"params": la.Params.merged(np.eye(2), np.eye(2))},
            ValueError,
            "params must have a value",
        ),
    ],
)
def test_bad_arguments_are_refused(small_problem, options, error, message):
    with pytest.raises(error, match=message):
        la.describe(small_problem, **options)


def test_a_deep_problem_is_refused():
    with pytest.raises(TypeError, match="problem must be a single-layer Problem for describe"):
        la.describe(deep_case()[0])
