"""Exact limits of the methods: where each is FedAvg, the minimizer, or local training."""

import numpy as np
import pytest
from bridge import relative_error, same_bits
from method_cases import (
    KINDS,
    NOISY,
    WEIGHTS,
    case,
    check_continued,
    close_runs,
    deep_case,
    equal_runs,
    frozen_world,
    log_slope,
    uneven_case,
)
from worlds import world

import linattn as la
from linattn.federated.methods.hypernetwork import draw_embeddings, make_hypernetwork
from linattn.federated.methods.scaffold import Variate
from linattn.federated.methods.two_stage import OwnMemory, StageMemory
from linattn.federated.rounds import Memory, RoundDriver, check_settings
from linattn.oracles.statistics import StatisticsOracle

COUNTS = ("floats_up", "floats_down", "multiply_adds")


def general_path():
    """FedAvg through local steps in Python."""
    return la.Method("slow", penalty_gradient=lambda c, i, own, w, batch: np.zeros_like(w))


# ------------------------------------------------------------------------ FedAvg to the bit


@pytest.mark.parametrize("noise", [{}, NOISY], ids=["full", "noisy"])
@pytest.mark.parametrize("kind", KINDS)
def test_methods_that_are_fed_avg_to_the_bit(kind, noise):
    held = case(kind, 1)
    average = held.run(la.fed_avg(), **noise)
    for method in (
        la.fed_avg(server_momentum=0.0),
        la.fed_avg(server_lr=[1.0, 1.0, 1.0, 1.0]),
        la.fed_nova(),
        la.fed_prox(prox=0.0),
        la.Method("zeros", direction=lambda *_: la.Direction(0.0, np.zeros(held.params.flat.size))),
        la.fed_frozen(warmup_rounds=4, frozen_lr=0.1),
        la.fed_frozen(warmup_rounds=10**6),
        la.fed_frozen(warmup_rounds=9, frozen="scaffold"),
        la.fed_frozen(warmup_rounds=4, freeze="value"),
        la.fed_part(groups=1, initial_rounds=0, rounds_per_group=1),
        la.fine_tuned(steps=2),
    ):
        equal_runs(held.run(method, **noise), average, but=("personal_objective",))
    count = len(held.params.layout.names)
    everything = la.selective(budget=count, consistency=0.3, scores="relative")
    equal_runs(held.run(everything, **noise), average, but=COUNTS)
    one_shot = la.fed_frozen(warmup_rounds=4, frozen="one_shot")
    recorded = la.Method("recorded", records_steps=True)
    for method in [general_path(), recorded] if kind == "deep" else [one_shot]:
        equal_runs(held.run(method, **noise), average)


@pytest.mark.parametrize("noise", [{}, NOISY], ids=["full", "noisy"])
@pytest.mark.parametrize("kind", KINDS)
def test_moon_without_weight_is_fed_avg_on_its_path(kind, noise):
    held = case(kind, 2)
    plain = la.fed_avg() if kind == "deep" else general_path()
    moon = held.run(la.moon(weight=0.0), **noise)
    equal_runs(moon, held.run(plain, **noise), but=("multiply_adds",))
    close_runs(moon, held.run(la.fed_avg(), **noise))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", [lambda x: la.fed_prox(prox=x), lambda x: la.moon(weight=x)])
def test_the_difference_is_first_order_in_the_weight(build, kind):
    held = case(kind, 3)
    start = held.run(build(0.0)).params.flat
    sizes = np.array([1e-2, 1e-3, 1e-4])
    moved = [np.linalg.norm(held.run(build(x)).params.flat - start) for x in sizes]
    assert min(moved) > 1e-9
    assert abs(log_slope(sizes, moved) - 1.0) < 0.01


def test_fed_sq_with_identity_features_is_fed_avg():
    held = case("deep", 4, feature_map="identity")
    structural = held.problem.model.initial_params(seed=8)
    for noise in ({}, NOISY):
        runs = [held.run(m, **noise) for m in (la.fed_sq(structural=structural), la.fed_avg())]
        equal_runs(*runs, but=("floats_down", "multiply_adds"))


def test_fed_sq_keeps_the_gates_of_the_structural_copy():
    held = case("deep", 5)
    problem, params = held.problem, held.params
    structural = problem.model.initial_params(seed=8)
    result, plain = held.run(la.fed_sq(structural=structural)), held.run(la.fed_avg())
    assert relative_error(result.params.flat, plain.params.flat) > 1e-3
    model, losses = problem.model, []
    for i in range(problem.num_clients):
        rows = problem.rows(i)
        for k, part in rows:
            tokens, targets = problem.groups[k].tokens[part], problem.groups[k].targets[part]
            gates = model.gates(structural, tokens)
            share = problem.weights[i] * len(tokens) / problem.client_sizes[i]
            losses.append(share * model.loss(result.params, tokens, targets, gates=gates))
    ridge = 0.5 * float(problem.ridges @ result.params.flat**2)
    assert abs(sum(losses) + ridge - result.columns["objective"][-1]) < 1e-12
    extra = plain.columns["floats_down"] - result.columns["floats_down"]
    assert extra.tolist() == [0, -4 * params.layout.size, 0, 0, 0]


# ------------------------------------------------------------------------ momentum and prox


def test_server_momentum_by_hand():
    held = case("merged", 6)
    path = held.run(la.fed_avg(server_momentum=0.4)).path
    velocity, at = np.zeros(held.params.layout.size), held.params
    for reached in path[1:]:
        mean = held._replace(params=at).run(la.fed_avg(), rounds=1).params.flat
        velocity = 0.4 * velocity + (mean - at.flat)
        at = la.Params(at.layout, at.flat + velocity)
        assert relative_error(reached.flat, at.flat) < 1e-12


def test_a_large_prox_keeps_clients_together():
    held = case("factored", 7)
    free, kept = (
        held.run(la.fed_prox(prox=x / held.step), local_lr=held.step / 10) for x in (0.0, 5.0)
    )
    assert kept.columns["kernel_drift"][-1] < 0.9 * free.columns["kernel_drift"][-1]


# ------------------------------------------------------------------------ SCAFFOLD


@pytest.mark.parametrize("option", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_scaffold_with_identical_clients_is_fed_avg(kind, option):
    held = uneven_case(kind, 8)
    pooled = held._replace(problem=la.pool(held.problem))
    corrected, average = pooled.run(la.scaffold(option=option)), pooled.run(la.fed_avg())
    close_runs(corrected, average)
    assert (corrected.columns["floats_up"] == 2 * average.columns["floats_up"]).all()


def test_the_first_scaffold_round_is_fed_avg_and_the_control_stays_the_mean():
    held = uneven_case("merged", 9)
    result = held.run(la.scaffold())
    assert same_bits(result.path[1], held.run(la.fed_avg()).path[1])
    sampled = held.run(la.scaffold(), rounds=9, **NOISY)
    for run in (result, sampled):
        mean = sum(WEIGHTS[i] * own.value for i, own in run.memory.clients.items())
        assert relative_error(run.memory.server, mean) < 1e-12


def frozen_scaffold(problem, params, **options):
    return la.run(la.fed_frozen(warmup_rounds=0, frozen="scaffold"), problem, params,
                  record_params=True, metrics=["gap"], **options)  # fmt: skip


def test_frozen_scaffold_does_not_move_from_the_minimizer():
    problem, params, _ = uneven_case("factored", 10)
    exact = params.replace(value=la.ValueBlock(problem, params).minimizer())
    oracle = StatisticsOracle(problem, params.layout)
    for steps in (1, 5, 20, 50):
        stage = la.frozen_stage(problem, params, local_steps=steps, local_lr=1.0)
        step = 0.5 / stage.largest_step_curvature
        zeros = np.zeros(params.layout.size)
        value = params.layout.mask(["value"])
        clients = {
            i: OwnMemory(True, Variate(np.where(value, oracle.gradient(i, exact.flat), 0.0), zeros))
            for i in range(4)
        }
        fresh = frozen_scaffold(problem, exact, rounds=0, local_steps=steps, local_lr=step)
        driver_memory = Memory(
            server=StageMemory(begun=True, second=np.zeros(params.layout.size)),
            clients=clients,
            traffic=fresh.memory.traffic,
            freeze_round=None,
        )
        result = frozen_scaffold(
            problem, exact, rounds=1, local_steps=steps, local_lr=step, memory=driver_memory
        )
        assert np.max(np.abs(result.params.value - exact.value)) < 1e-12


@pytest.mark.parametrize("steps", [1, 5, 20, 50])
def test_frozen_scaffold_reaches_the_minimizer_in_the_predicted_rounds(steps):
    problem, params, step = frozen_world()
    stage = la.scaffold_stage(problem, params, local_steps=steps, local_lr=step)
    rounds = int(stage.rounds_to(1e-10))
    result = frozen_scaffold(problem, params, rounds=rounds, local_steps=steps, local_lr=step)
    star = la.ValueBlock(problem, params).minimizer()
    errors = np.array([np.linalg.norm(at.value - star) for at in result.path])
    assert errors[-1] < 1e-10
    reached = int(np.argmax(errors < 1e-10))
    assert rounds / 2 < reached <= rounds  # a prediction, not only a bound
    if steps > 1:  # the averaged stage stops at its floor instead
        average = la.frozen_stage(problem, params, local_steps=steps, local_lr=step)
        assert np.linalg.norm(average.fixed_point - star) > 1e-3


@pytest.mark.parametrize("kind", ["merged", "factored"])
def test_one_exact_round_is_the_minimizer(kind):
    held = uneven_case(kind, 11)
    result = held.run(la.fed_frozen(warmup_rounds=2, frozen="one_shot"), rounds=5)
    star = la.ValueBlock(held.problem, result.path[2]).minimizer()
    assert relative_error(result.path[3].value, star) < 1e-12
    assert same_bits(result.path[3], result.path[5])
    assert result.columns["floats_up"][4:].tolist() == [0, 0]
    assert result.columns["floats_down"][5] == 0
    assert result.freeze_round == 2


# ------------------------------------------------------------------------ FedTP


@pytest.mark.parametrize("kind", ["factored", "deep"])
def test_orthogonal_embeddings_are_local_attention(kind):
    held = case(kind, 12, weights="equal")
    method = la.fed_tp(embedding_dim=4, bias=False, train_embeddings=False,
                       embeddings=np.eye(4), server_lr=4.0)  # fmt: skip
    made, local = held.run(method), held.run(la.local_attention())
    for left, right in zip(made.client_params, local.client_params, strict=True):
        assert relative_error(left.flat, right.flat) < 1e-12
    assert np.allclose(
        made.columns["personal_objective"], local.columns["personal_objective"], rtol=1e-12
    )
    spread = [np.linalg.norm(at.flat - made.client_params[0].flat) for at in made.client_params]
    assert max(spread) > 1e-3


@pytest.mark.parametrize("noise", [{}, NOISY], ids=["full", "noisy"])
@pytest.mark.parametrize("kind", ["factored", "deep"])
def test_equal_embeddings_are_fed_avg(kind, noise):
    held = uneven_case(kind, 13)
    z = np.array([0.6, -1.1, 0.3])
    method = la.fed_tp(bias=False, train_embeddings=False, embeddings=np.tile(z, (4, 1)),
                       server_lr=1.0 / float(z @ z))  # fmt: skip
    close_runs(held.run(method, **noise), held.run(la.fed_avg(), **noise))


def test_the_gram_matrix_of_embeddings_is_the_collaboration_graph():
    """W_i⁺ = W_i + η_h Σ_j w_j ⟨z̃_i, z̃_j⟩(Ŵ_j − W_j), z̃ = (z, 1) with bias."""
    problem, params, step = uneven_case("factored", 14)
    z = np.random.default_rng(3).standard_normal((4, 2))
    settings = check_settings(rounds=1, local_steps=3, local_lr=step)
    oracle = StatisticsOracle(problem, params.layout)
    for bias, extended in ((True, np.column_stack([z, np.ones(4)])), (False, z)):
        method = la.fed_tp(embeddings=z, bias=bias, train_embeddings=False, server_lr=0.3)
        driver = RoundDriver(method, problem, oracle, params, settings)
        before = np.stack(driver.client_models(0))
        done = driver.step(0)
        after = np.stack(driver.client_models(0))
        mask = params.layout.mask(["query", "key"])
        moved = 0.3 * (extended @ extended.T * WEIGHTS) @ (done.ends - before)[:, mask]
        assert relative_error(after[:, mask] - before[:, mask], moved) < 1e-11


@pytest.mark.parametrize("hidden_dim", [0, 5])
def test_vector_jacobian_products_of_the_hypernetwork(hidden_dim):
    rng = np.random.default_rng(4)
    start = make_hypernetwork(
        draw_embeddings(3, 4, 0), rng.standard_normal(6), hidden_dim=hidden_dim, bias=True, seed=1
    )
    network = start._replace(**{n: a + rng.standard_normal(a.shape) for n, a in
                                start._asdict().items()})  # fmt: skip
    cotangents = rng.standard_normal((3, 6))
    gradient = network.pull_back(cotangents)
    for name, part in network._asdict().items():
        direction = rng.standard_normal(part.shape)
        ends = [
            np.vdot(cotangents, network._replace(**{name: part + t * direction}).generate())
            for t in (1e-6, -1e-6)
        ]
        expected = (ends[0] - ends[1]) / 2e-6
        assert abs(np.vdot(getattr(gradient, name), direction) - expected) < 1e-6


def test_a_newcomer_adapts_through_its_embedding_alone():
    problem = world(num_clients=8, sequences_per_client=24, num_tokens=8, noise=0.0,
                    kernel_heterogeneity=1.0, value_ridge=0.02, weights="equal")  # fmt: skip
    params = la.initial_params(problem, kernel="factored", scale=1.0, value="normal")
    old, new = problem.subset(range(6)), problem.subset([6, 7])
    options = {"local_steps": 5, "local_lr": 0.02}
    trained = la.run(la.fed_tp(embedding_dim=3, server_lr=2.0), old, params, rounds=150, **options)
    method = la.fed_tp_newcomers(trained, server_lr=0.3)
    joined = la.run(method, new, trained.params, rounds=40, **options)
    start, end = joined.columns["personal_objective"][[0, -1]]
    assert end < start
    network, before = joined.memory.server.network, trained.memory.server.network
    for name in ("hidden", "hidden_bias", "head", "head_bias"):
        assert same_bits(getattr(network, name), getattr(before, name))
    assert network.embeddings.shape == (2, 3)
    assert same_bits(joined.params.value, trained.params.value)


def test_fine_tuned_models_are_local_steps_from_the_server():
    held = case("factored", 15)
    result = held.run(la.fine_tuned(steps=6))
    for i, own in enumerate(result.client_params):
        there = held._replace(problem=held.problem.subset([i]), params=result.params)
        alone = there.run(la.fed_avg(), rounds=1, local_steps=6)
        assert relative_error(own.flat, alone.params.flat) < 1e-12
    assert result.columns["personal_objective"][-1] < result.columns["objective"][-1]


def test_local_blocks_never_travel_and_are_remembered():
    held = case("factored", 16)
    params, result = held.params, held.run(la.local_attention(blocks=("query",)), **NOISY)
    rest = params.layout.size - params["query"].size
    assert result.columns["floats_up"][1:].tolist() == [2 * rest] * 4
    assert all(same_bits(at["query"], params["query"]) for at in result.path)
    never = set(range(4)) - set(result.memory.clients)
    for i, own in enumerate(result.client_params):
        assert same_bits(own["query"], params["query"]) == (i in never)
        assert same_bits(own.value, result.params.value)


def test_client_quantities_are_those_of_the_models_in_use():
    seen = []
    for method in (la.fed_avg(), la.local_attention()):
        result = case("factored", 17).run(
            method, rounds=2, local_steps=2, metrics=["objective", "personal_objective"],
            evaluate_clients=lambda models: {"norm": np.linalg.norm(models[1].flat)},
        )  # fmt: skip
        seen.append(result)
        assert result.columns["norm"][-1] == np.linalg.norm(result.client_params[1].flat)
    plain = seen[0].columns
    assert np.allclose(plain["objective"], plain["personal_objective"], rtol=1e-13)


# ------------------------------------------------------------------------ all of them


@pytest.mark.parametrize("kind", ["factored", "deep"])
def test_a_continued_run_is_the_whole_run_to_the_bit(kind):
    problem, params, step = case(kind, 18)
    options = {"rounds": 5, "local_steps": 2, "local_lr": step} | NOISY
    for method in (
        la.fed_avg(server_momentum=0.5),
        la.scaffold(),
        la.moon(weight=0.5),
        la.fed_frozen(warmup_rounds=1, frozen="scaffold"),
        la.fed_frozen(warmup_rounds=3),
        la.fed_part(order="random", initial_rounds=1, rounds_per_group=1),
        la.fed_tp(embedding_dim=2, server_lr=0.5, server_momentum=0.5),
        la.local_attention(),
        la.selective(budget=1, consistency=0.1),
    ):
        check_continued(lambda method=method: method, problem, params, (2,), **options)


def mismatch_of(problem, params, method, step, t=0):
    """Weights and client models before averaging in round t."""
    settings = check_settings(rounds=t + 1, local_steps=5, local_lr=step)
    oracle = StatisticsOracle(problem, params.layout)
    done = RoundDriver(method, problem, oracle, params, settings).step(t)
    return done.context.weights, [la.Params(params.layout, flat) for flat in done.ends]


@pytest.mark.parametrize("kind", ["merged", "factored"])
def test_one_block_of_one_layer_has_no_mismatch(kind):
    problem, params, step = case(kind, 19)
    blocks = la.fed_part(initial_rounds=0, rounds_per_group=1)
    for t in range(len(params.layout.names)):
        weights, models = mismatch_of(problem, params, blocks, step, t)
        found = la.aggregation_mismatch(problem, models, weights)
        assert np.linalg.norm(found.measured) <= 1e-14 * found.scale
    weights, models = mismatch_of(problem, params, la.fed_avg(), step)
    found = la.aggregation_mismatch(problem, models, weights)
    assert np.linalg.norm(found.measured) > 1e-8 * found.scale
    for wrong, sentence in ((1.1 * weights, "sum to 1"), (weights[1:], "entries, got")):
        with pytest.raises(ValueError, match=f"weights must .*{sentence}"):
            la.aggregation_mismatch(problem, models, wrong)


@pytest.mark.parametrize("feature_map", ["identity", "relu"])
def test_at_depth_only_blocks_of_the_last_layer_have_no_mismatch(feature_map):
    from linattn.oracles.deep import DeepOracle

    problem, params = deep_case(20, feature_map=feature_map)
    step = {"identity": 0.001, "relu": 0.02}[feature_map]
    settings = check_settings(rounds=9, local_steps=20, local_lr=step)
    linear = {"identity": {"layer1.query", "layer1.key", "layer1.value", "readout"},
              "relu": {"layer1.value", "readout"}}[feature_map]  # fmt: skip
    tokens = [x for group in problem.groups for x in group.tokens]
    for t, name in enumerate(params.layout.names):
        method = la.fed_part(initial_rounds=0, rounds_per_group=1)
        done = RoundDriver(method, problem, DeepOracle(problem), params, settings).step(t)
        assert done.plan.trained == {name}
        predict = [
            np.concatenate(problem.model.predict(la.Params(params.layout, w), tokens))
            for w in (*done.ends, done.flat)
        ]
        averaged = np.tensordot(done.context.weights, np.stack(predict[:-1]), 1)
        relative = np.linalg.norm(averaged - predict[-1]) / np.linalg.norm(averaged)
        assert (relative < 1e-14) == (name in linear), (name, relative)
