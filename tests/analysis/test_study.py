"""Studies: every entry is a run, costs are the accountant's, comparisons are paired and tuned."""

from functools import partial

import numpy as np
import pytest

import linattn as la
from linattn.analysis.budget import Budget, TwoStageCost, affordable, one_budget
from linattn.analysis.study import bootstrapped, cells_in_order, plateau
from linattn.analysis.study_cell import default_grid
from linattn.federated.method import Plan
from linattn.federated.settings import choose_participants

STEPS = (0.01, 0.03, 0.06)
SETTINGS = {"local_lrs": STEPS, "local_steps": 4, "rounds": 8}


def start(problem):
    return lambda seed: la.initial_params(problem, scale=0.7, seed=seed)


@pytest.fixture(scope="module")
def found(small_problem):
    names = ("fed_avg", "fed_frozen", "fed_frozen_exact", "frozen_scaffold", "scaffold")
    methods = (*names, la.fed_prox(prox=0.5))
    return la.study(small_problem, start(small_problem), methods=methods, seeds=(0, 3), **SETTINGS)


@pytest.fixture(scope="module")
def study(small_problem):
    return partial(la.study, small_problem, start(small_problem))


def run(problem, method, seed, step, **more):
    fields = {"rounds": 8, "local_steps": 4, "local_lr": step, "seed": seed} | more
    return la.run(method, problem, start(problem)(seed), metrics=("objective",), **fields)


@pytest.mark.parametrize("step", STEPS)
def test_every_entry_is_the_loss_of_a_run(small_problem, found, step):
    at = found.table.sel(local_lr=step, seed=3, local_steps=4)["objective"]
    made = {
        "fed_frozen": lambda t: la.fed_frozen(warmup_rounds=t),
        "fed_frozen_exact": lambda t: la.fed_frozen(warmup_rounds=t, frozen="one_shot"),
        "frozen_scaffold": lambda t: la.fed_frozen(warmup_rounds=t, frozen="scaffold"),
    }
    for name, method in made.items():
        for t in (0, 3, 7):
            losses = run(small_problem, method(t), 3, step).columns["objective"]
            value = float(at.sel({"method": name, "warmup": t}))
            assert value == pytest.approx(losses[t + 1 if "exact" in name else -1], rel=1e-10)
    whole = {
        "fed_avg": la.fed_avg(),
        "scaffold": la.scaffold(),
        "fed_prox(0.5)": la.fed_prox(prox=0.5),
    }
    for name, method in whole.items():
        losses = run(small_problem, method, 3, step).columns["objective"]
        assert float(at.sel({"method": name, "warmup": 8})) == pytest.approx(losses[-1], rel=1e-12)
        assert np.isnan(at.sel({"method": name}).values[:-1]).all()
        assert np.isnan(found.table["rounds"].sel({"method": name, "warmup": 3})).all()
    assert np.isinf(at.sel({"method": "fed_frozen_exact", "warmup": 8}))  # no round is left for it


@pytest.mark.parametrize("sampled", [{"participation": 0.5}, {"batch_size": 2}])
def test_sampled_frozen_rounds_are_expectations(small_problem, sampled):
    params = start(small_problem)(3)
    table = la.bias_drift(
        small_problem, params, local_lr=0.03, local_steps=4, rounds=8, warmup_lengths=range(9),
        reference=0.0, seed=3, **sampled,
    )  # fmt: skip
    settings = SETTINGS | sampled | {"seeds": (3,), "methods": ("fed_frozen",)}
    found = la.study(small_problem, params, **settings).table["objective"]
    ended = found.sel({"local_lr": 0.03, "seed": 3, "local_steps": 4, "method": "fed_frozen"})
    np.testing.assert_allclose(ended.values.ravel(), table["objective"].values, rtol=1e-12)


def test_best_is_the_best_step_by_the_median_over_seeds(found):
    losses = found.losses("fed_frozen")
    medians = np.median(losses[0].min(axis=-1), axis=-1)
    best = found.best("fed_frozen")
    assert best.local_lr == STEPS[int(np.argmin(medians))]
    assert best.interior is (best.local_lr == 0.03)
    at = losses[0, STEPS.index(best.local_lr)]
    np.testing.assert_array_equal(best.warmup, at.argmin(axis=-1))
    np.testing.assert_array_equal(best.objective, at.min(axis=-1))
    assert (best.plateau[:, 0] <= best.warmup).all()
    assert (best.plateau[:, 1] >= best.warmup).all()


def test_comparisons_are_paired(found):
    pair = found.compare("fed_frozen_exact", "fed_avg")
    np.testing.assert_array_equal(pair.differences, pair.first.objective - pair.second.objective)
    assert pair.wins == int((pair.differences < 0).sum())
    assert pair.low <= pair.median <= pair.high
    assert "2 seeds: no interval" in str(pair)
    same = found.compare("fed_avg", "fed_avg")
    assert (same.median, same.low, same.high, same.wins) == (0.0, 0.0, 0.0, 0)
    with pytest.raises(ValueError, match=r"method must be one of fed_avg, .*, got 'moon'"):
        found.best("moon")


def test_words_and_pictures(found):
    words = str(found)
    assert words.startswith("study for 8 rounds, 2 seeds, each at its best step")
    assert "T* = " in words.splitlines()[2]
    assert "T*" not in words.splitlines()[1]  # FedAvg has no length
    assert found._repr_html_().count("<tr>") == 7
    axes = found.plot()
    assert len(axes.lines) == 6
    assert axes.get_xlabel() == "local step η"


@pytest.mark.parametrize("kind", ["floats", "multiply_adds"])
@pytest.mark.parametrize("shares", [(1.0, 1.0), (0.5, 0.5), (0.5, 1.0)])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_costs_are_the_accountants(small_problem, small_params, kind, shares, batch_size):
    settings = {"local_steps": 3, "seed": 5, "batch_size": batch_size}
    cost = TwoStageCost(
        small_problem, small_params, kind, participation=shares[0],
        frozen_participation=shares[1], **settings,
    )  # fmt: skip
    names = ("floats_up", "floats_down") if kind == "floats" else ("multiply_adds",)

    def spent(method, participation, **more):
        result = la.run(
            method, small_problem, small_params, local_lr=0.01, metrics=names,
            participation=participation, **settings, **more,
        )  # fmt: skip
        return np.cumsum(sum(result.columns[name] for name in names))

    warm = spent(la.fed_avg(), shares[0], rounds=6)
    np.testing.assert_array_equal(cost.warmup(6), warm)
    frozen = spent(la.fed_frozen(warmup_rounds=2), shares[1], rounds=8, start_round=2)
    np.testing.assert_array_equal(cost.frozen(2, 6), frozen[1:])
    exact = spent(la.fed_frozen(warmup_rounds=1, frozen="one_shot"), 1.0, rounds=2, start_round=1)
    assert cost.exact == exact[1]


def test_a_budget_of_floats_buys_more_frozen_rounds(study, small_problem):
    dims = la.initial_params(small_problem).layout.size
    floats = 2 * dims * small_problem.num_clients * 6
    methods = ("fed_avg", "fed_frozen", "scaffold", "frozen_scaffold")
    held = study(local_lrs=[0.05], local_steps=4, floats=floats, methods=methods)
    rounds = held.table["rounds"].squeeze()
    assert rounds.sel({"method": "fed_avg", "warmup": 6}) == 6
    assert rounds.sel({"method": "fed_frozen", "warmup": 0}) > 10
    assert rounds.sel({"method": "scaffold", "warmup": 6}) == 3
    forked = rounds.sel({"method": "frozen_scaffold", "warmup": 2})
    assert 2 < forked < rounds.sel({"method": "fed_frozen", "warmup": 2})


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_budget_of_work_is_what_a_run_of_unequal_clients_does(batch_size):
    """The first round is that of the client with most sequences: it costs many times the others."""
    draw = np.random.default_rng(0)
    clients = [(draw.normal(size=(n, 4, 3)), draw.normal(size=(n, 4, 2))) for n in (40, *[2] * 19)]
    problem = la.problem_from_tokens(clients, value_ridge=0.1, kernel_ridge=0.1)
    params, more = la.initial_params(problem), {"participation": 0.05, "batch_size": batch_size}
    seed = next(s for s in range(99) if choose_participants(20, 0.05, s, 0).tolist() == [0])
    result = la.run(la.fed_avg(), problem, params, rounds=60, local_steps=2, local_lr=0.01,
                    metrics=("multiply_adds",), seed=seed, **more)  # fmt: skip
    amount = float(result.columns["multiply_adds"].sum())
    held = la.study(problem, params, methods=("fed_avg",), local_lrs=[0.01], local_steps=2,
                    multiply_adds=amount, seeds=[seed], **more)  # fmt: skip
    assert held.table["rounds"].values.ravel()[-1] == 60


def test_divergence_is_infinite_and_loses(study):
    methods = ("fed_avg", "scaffold", "fed_frozen_exact")
    held = study(methods=methods, local_lrs=[0.02, 50.0], local_steps=4, rounds=6)
    assert np.isinf(held.losses("fed_avg")[0, 1, 0, -1])
    assert np.isinf(held.losses("scaffold")[0, 1, 0, -1])
    assert all(held.best(name).local_lr == 0.02 for name in held.methods)
    lost = study(methods=["fed_avg"], local_lrs=[50.0], local_steps=4, rounds=6).best("fed_avg")
    assert (lost.warmup, lost.plateau.tolist(), lost.objective) == (6, [[6, 6]], np.inf)


def test_stored_and_resumed_cells_are_the_same_table(study, tmp_path):
    fields = SETTINGS | {"local_lrs": STEPS[:2], "seeds": (0, 1)}
    memory, stored = study(**fields), study(store=tmp_path, **fields)
    assert memory.table.identical(stored.table)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.nc")}
    assert len(times) == 4
    study(store=tmp_path, **fields)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.nc")}
    own = tmp_path / "mine.py"
    own.write_text("import linattn as la\nmethod = la.fed_prox(prox=0.5)\n")
    text = f"{own}:method"
    pair = [study(methods=[text], **fields, **more) for more in ({}, {"store": tmp_path})]
    assert pair[0].table.identical(pair[1].table)
    assert pair[0].methods == ["fed_prox(0.5)"]
    with pytest.raises(ValueError, match=r"methods must be names or 'PATH\.py:NAME'"):
        study(methods=[la.fed_avg()], store=tmp_path, **fields)


def test_time_cuts_what_matters_least(study):
    held = study(time_budget=1e-9, seeds=range(3), **SETTINGS)
    assert held.table.sizes["seed"] == 1
    assert held.table["local_lr"].values.tolist() == [0.03]
    assert held.cut == ("time cut 2 of 3 seeds.", "time cut 2 of 3 step sizes.")
    assert str(held).endswith("time cut 2 of 3 step sizes.")
    order = cells_in_order([1.0, 2.0, 3.0], [5], [0, 1])
    assert [step for _, step, seed in order if seed == 0] == [2.0, 1.0, 3.0]
    assert [seed for *_, seed in order] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"rounds": None}, "one of rounds, floats and multiply_adds must be given, got none"),
        ({"floats": 10}, "must be given, got rounds, floats"),
        ({"rounds": -3}, "rounds must be"),
        ({"rounds": 2.5}, "rounds must be a whole number, got 2.5"),
        ({"time_budget": -1}, "time_budget must be > 0"),
        ({"local_lrs": []}, "local_lrs must not be empty"),
        ({"seeds": []}, "seeds must not be empty"),
        ({"methods": []}, "methods must not be empty"),
        ({"methods": ["fed_avgs"]}, "methods must be one of 'fed_avg'"),
        ({"methods": ["moon", "moon"]}, "methods must be distinct, got 'moon' twice"),
        ({"methods": [la.fed_avg]}, "must be called"),
        ({"participation": 0.0}, "participation must be"),
        ({"warmup_lengths": [-1]}, "warmup_lengths must be"),
        ({"warmup_lengths": [20, 30]}, "one of at most 8 rounds, .* got 20, 30"),
        ({"frozen_lr": "fast"}, "frozen_lr must be"),
    ],
)
def test_bad_arguments_are_one_sentence(study, wrong, sentence):
    fields = {"seeds": range(1)} | SETTINGS | wrong
    with pytest.raises((ValueError, TypeError), match=sentence):
        study(**fields)


@pytest.mark.parametrize("call", [la.study, la.predict_study])
@pytest.mark.parametrize("by_seed", [False, True])
def test_what_has_no_kernel_profile_is_one_sentence(call, by_seed):
    model = la.DeepAttention(num_layers=1, dim=2, inner_dim=1, num_outputs=1)
    deep = la.deep_problem(model, [(np.ones((1, 3, 2)), np.ones((1, 3, 1)))], ridge=0.1)
    problem = (lambda seed: deep) if by_seed else deep
    with pytest.raises(TypeError, match=r"problem must be a single-layer .* DeepProblem"):
        call(problem, model.initial_params(), local_lrs=[0.1], local_steps=1, rounds=2)


def test_averaging_needs_no_length_at_its_end(small_problem):
    """FedAvg goes as far as the budget, whatever the lengths of the others."""
    settings = SETTINGS | {"rounds": None, "floats": 700.0, "methods": ("fed_avg", "fed_frozen")}
    params = start(small_problem)(0)
    every = la.study(small_problem, params, **settings | {"warmup_lengths": None})
    some = la.study(small_problem, params, **settings | {"warmup_lengths": (0, 2)})
    assert every.table.sizes["warmup"] > 3
    assert np.array_equal(every.best("fed_avg").objective, some.best("fed_avg").objective)


@pytest.mark.parametrize(("budget", "last"), [("floats", 4), ("multiply_adds", 3)])
def test_a_method_that_has_stopped_ends_where_it_stopped(small_problem, budget, last):
    """One exact round at the middle of few, then nothing is sent, computed or changed any more."""
    method = la.fed_frozen(warmup_rounds=2, frozen="one_shot")
    params = start(small_problem)(0)
    shares = {"participation": 1.0, "frozen_participation": 1.0}
    cost = TwoStageCost(small_problem, params, budget, local_steps=4, seed=0, **shares)
    amount = float(cost.warmup(20)[-1])
    settings = SETTINGS | {"rounds": None, budget: amount, "methods": (method,), "seeds": (0,)}
    settings["warmup_lengths"] = (0,)
    table = la.study(small_problem, params, **settings).table.isel(seed=0, local_steps=0)
    # Clients fetch the value block that the exact round made once more.
    assert (table["rounds"].values.ravel() == last).all()
    for step in STEPS:
        losses = run(small_problem, method, 0, step).columns["objective"]
        ended = float(table["objective"].sel({"local_lr": step}).values.ravel()[-1])
        assert ended == pytest.approx(losses[3], rel=1e-12)


def test_a_method_that_is_free_but_goes_on_has_no_budget(study):
    """Clients that keep all blocks fetch them once, and then train for nothing."""
    method = la.Method(
        "alone",
        plan=lambda context, memory: Plan(
            frozenset(context.params.layout.names),
            context.local_lr,
            kept=frozenset(context.params.layout.names),
        ),
        client_memory=lambda context, client: context.params.flat,
        start=lambda context, client, server, own: own,
        update_client=lambda context, client, server, own, end: end,
        personal=lambda context, client, server, own: own,
    )
    settings = SETTINGS | {"rounds": None, "floats": 700.0, "methods": (method,)}
    with pytest.raises(ValueError, match="alone goes on training without any floats"):
        study(**settings)
    found = study(**SETTINGS | {"methods": (method,)})
    assert np.isfinite(found.best("alone").objective).all()


def test_a_budget_that_goes_on_is_one_long_run(small_problem):
    """Memory and all: SCAFFOLD's variates, and clients that are drawn."""
    params, step = start(small_problem)(2), 0.03
    method = la.fed_frozen(warmup_rounds=3, frozen="scaffold")
    settings = SETTINGS | {"local_lrs": (step,), "participation": 0.5, "seeds": (2,)}
    settings |= {"rounds": None, "floats": 1500.0, "methods": (method,)}
    table = la.study(small_problem, params, **settings).table.isel(seed=0, local_steps=0)
    more = {"rounds": 60, "participation": 0.5}
    costs = ("objective", "floats_up", "floats_down")
    columns = la.run(method, small_problem, params, local_steps=4, local_lr=step, seed=2,
                     metrics=costs, **more).columns  # fmt: skip
    bought = affordable(np.cumsum(columns["floats_up"] + columns["floats_down"])[1:], 1500.0)
    assert 12 < bought < 60
    assert float(table["rounds"].values.ravel()[-1]) == bought
    assert float(table["objective"].values.ravel()[-1]) == columns["objective"][bought]


def test_plateaus_and_grids():
    losses = np.array([np.nan, 9.0, 2.0, 1.0, 1.1, np.inf, 11.0])
    assert plateau(losses, np.arange(7)) == (3, 4)
    assert plateau(np.array([3.0, 3.0, 3.0]), np.arange(3)) == (0, 2)
    assert plateau(np.full(3, np.inf), np.arange(3)) == (0, 2)
    grid = default_grid(1000)
    assert grid[0] == 0
    assert grid[-1] == 1000
    assert 150 < len(grid) <= 200
    assert affordable(np.array([1.0, 2.0, 3.0]), 2.0) == 2
    assert one_budget(None, 5, None) == Budget("floats", 5.0)
    assert str(Budget("multiply_adds", 1e6)) == "1e+06 multiply-adds"
    low, high = bootstrapped(np.arange(11.0))
    assert low < 5.0 < high
