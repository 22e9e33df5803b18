"""`la.run` on deep problems: the same driver, the same streams, the same identities."""

import pickle

import numpy as np
import pytest
from bridge import moved, relative_error, same_bits
from method_cases import (
    NOISY,
    RIDGE,
    RUN,
    check_continued,
    close_runs,
    deep_case,
    deep_clients,
)

import linattn as la
from linattn.federated.rounds import draw_batches
from linattn.oracles.deep import DeepOracle
from linattn.streams import stream

SIZES = (3, 4, 5, 6)
RUN = RUN | {"local_lr": 0.02}


def build(seed=0, **options):
    problem, params = deep_case(seed, **options)
    return problem.model, deep_clients(problem.model, seed), problem, params


def client_value_and_gradient(model, data, params, batch=None):
    """F_i and its gradient from the model's public functions, sequence by sequence."""
    tokens, targets = data
    chosen = range(len(tokens)) if batch is None else batch
    kernel = model.layout.mask(model.layout.kernel_blocks)
    ridges = np.where(kernel, RIDGE["kernel"], RIDGE["value"])
    value, gradient = 0.5 * ridges @ params.flat**2, ridges * params.flat
    for s in chosen:
        x, y = tokens[s][None], targets[s]
        error = (model.predict(params, x)[0] - y) / len(y) / len(chosen)
        value += 0.5 * np.vdot(error, error) * len(y) * len(chosen)
        gradient = gradient + model.backward(params, x, error[None]).flat
    return value, gradient


# ------------------------------------------------------------------------ objective and steps


@pytest.mark.parametrize("weights", [None, "equal", (0.1, 0.2, 0.3, 0.4)])
@pytest.mark.parametrize("readout", ["token", "mean", "last"])
def test_objective_and_gradient_norms(readout, weights):
    model, data, problem, params = build(1, weights=weights, readout=readout)
    sizes = np.array(SIZES)
    p = {None: sizes / sizes.sum(), "equal": np.full(4, 0.25)}.get(weights, np.array(weights))
    assert np.allclose(problem.weights, p, rtol=1e-15)
    parts = [client_value_and_gradient(model, client, params) for client in data]
    gradient = sum(w * g for w, (_, g) in zip(p, parts, strict=True))
    kernel = model.layout.mask(model.layout.kernel_blocks)
    columns = la.run(la.fed_avg(), problem, params, **(RUN | {"rounds": 0})).columns
    assert relative_error(columns["objective"][0], sum(
        w * f for w, (f, _) in zip(p, parts, strict=True))) < 1e-13  # fmt: skip
    for name, mask in (("kernel_gradient_norm", kernel), ("value_gradient_norm", ~kernel)):
        assert relative_error(columns[name][0], np.linalg.norm(gradient[mask])) < 1e-12


@pytest.mark.parametrize("weights", [None, (0.1, 0.2, 0.3, 0.4)])
def test_one_local_step_is_centralized_gradient_descent(weights):
    model, data, problem, params = build(2, weights=weights)
    result = la.run(la.fed_avg(), problem, params, **(RUN | {"local_steps": 1}))
    at = params
    for reached in result.path[1:]:
        gradients = [client_value_and_gradient(model, client, at)[1] for client in data]
        slope = la.Params(model.layout, problem.weights @ np.stack(gradients))
        at = moved(at, slope, -RUN["local_lr"])
        assert relative_error(reached.flat, at.flat) < 1e-13


def test_streams_are_those_of_single_layer_problems():
    """Participants and minibatches by the contract, replayed by hand."""
    model, data, problem, params = build(3)
    result = la.run(la.fed_avg(), problem, params, **RUN, **NOISY)
    flat = params.flat
    for t in range(RUN["rounds"]):
        chosen = np.sort(stream(9, "participation", t).choice(4, 2, replace=False))
        weights = problem.weights[chosen] / problem.weights[chosen].sum()
        ends = []
        for i in chosen:
            at = flat
            for batch in draw_batches(SIZES[i], 2, 3, stream(9, "batch", int(i), t)):
                held = la.Params(model.layout, at)
                at = at - 0.02 * client_value_and_gradient(model, data[i], held, batch)[1]
            ends.append(at)
        flat = weights @ np.stack(ends)
        assert relative_error(result.path[t + 1].flat, flat) < 1e-12


@pytest.mark.parametrize("noise", [{}, NOISY])
@pytest.mark.parametrize("readout", ["token", "mean", "last"])
def test_one_layer_runs_like_the_single_layer_problem(readout, noise):
    """Only query and key train, so W_O stays folded into V: both oracles, one trajectory."""
    options = {"num_layers": 1, "feature_map": "identity", "residual": False, "readout": readout}
    _, data, problem, params = build(4, **options)
    value = params["layer0.value"] @ params["readout"]
    single = la.problem_from_tokens(data, readout=readout, kernel_ridge=0.03, value_ridge=0.05)
    start = la.Params.factored(params["layer0.query"], params["layer0.key"], value)
    only_kernel = la.Method(
        "kernel", plan=lambda c, memory: la.Plan(c.params.layout.kernel_blocks, c.local_lr)
    )
    deep = la.run(only_kernel, problem, params, **RUN, **noise)
    flat = la.run(only_kernel, single, start, **RUN, **noise)
    for a, b in zip(deep.path, flat.path, strict=True):
        for name in ("query", "key"):
            assert relative_error(a[f"layer0.{name}"], b[name]) < 1e-12
    for name in ("kernel_gradient_norm", "kernel_drift"):
        assert np.allclose(deep.columns[name][1:], flat.columns[name][1:], rtol=1e-9)


# ------------------------------------------------------------------------ identities


@pytest.mark.parametrize("noise", [{}, NOISY])
def test_fed_frozen_freezes_exactly_the_kernel_blocks(noise):
    model, _, problem, params = build(5)
    average = la.run(la.fed_avg(), problem, params, **RUN, **noise)
    frozen = la.run(la.fed_frozen(warmup_rounds=2), problem, params, **RUN, **noise)
    assert all(same_bits(a, b) for a, b in zip(average.path[:3], frozen.path[:3], strict=True))
    for name in model.layout.names:
        stays = same_bits(frozen.path[2][name], frozen.params[name])
        assert stays == (name in model.layout.kernel_blocks)
    assert frozen.freeze_round == 2
    assert frozen.columns["kernel_trained"].tolist() == [False, True, True, False, False]
    assert (frozen.columns["kernel_drift"][3:] < 1e-14).all()


def test_identical_clients_are_one_client():
    _, _, problem, params = build(6)
    pooled = la.pool(problem)
    assert pooled.client_sizes.tolist() == [sum(SIZES)] * 4
    many = la.run(la.fed_avg(), pooled, params, **RUN)
    one = la.run(la.fed_avg(), pooled.subset([0]), params, **RUN)
    sampled = la.run(la.fed_avg(), pooled, params, **RUN, participation=0.5)
    close_runs(many, one, 1e-13)
    close_runs(sampled, one, 1e-13)
    assert (many.columns["kernel_drift"][1:] < 1e-14).all()


def test_the_order_of_clients_and_sequences_does_not_matter():
    model, data, problem, params = build(7)
    plain = la.run(la.fed_avg(), problem, params, **RUN)
    mixed = [(x[::-1], y[::-1]) for x, y in data]
    for other in (problem.subset([2, 0, 3, 1]), la.deep_problem(model, mixed, ridge=RIDGE)):
        close_runs(plain, la.run(la.fed_avg(), other, params, **RUN), 1e-13)


@pytest.mark.parametrize("noise", [{}, NOISY])
def test_resume_is_bit_for_bit(noise):
    _, _, problem, params = build(9)
    method = la.fed_frozen(warmup_rounds=2)
    check_continued(lambda: method, problem, params, (1, 3), **RUN, **noise)


# ------------------------------------------------------------------------ what methods may use


def test_gates_of_the_own_parameters_change_nothing_at_the_start():
    model, data, problem, params = build(11)
    plain, gated = DeepOracle(problem), DeepOracle(problem, structural=params)
    for i, batch in ((0, None), (3, np.array([1, 4]))):
        assert same_bits(
            plain.gradient(i, params.flat, batch), gated.gradient(i, params.flat, batch)
        )
    other = model.initial_params(seed=77)
    tokens, targets = data[0]
    gates = model.gates(params, tokens)
    errors = [
        (y - t) / len(t) / len(tokens)
        for y, t in zip(model.predict(other, tokens, gates=gates), targets, strict=True)
    ]
    expected = model.backward(other, tokens, errors, gates=gates).flat
    expected = expected + problem.ridges * other.flat
    assert relative_error(gated.gradient(0, other.flat), expected) < 1e-12
    assert relative_error(plain.gradient(0, other.flat), expected) > 1e-3


def test_gates_of_identity_features_change_nothing():
    model, _, problem, params = build(12, feature_map="identity")
    gated = DeepOracle(problem, structural=model.initial_params(seed=5))
    assert same_bits(gated.gradient(1, params.flat), DeepOracle(problem).gradient(1, params.flat))


def test_traces_cover_the_batch_once():
    _, data, problem, params = build(13)
    oracle = DeepOracle(problem)
    for batch in (None, np.array([0, 2, 5])):
        held = list(oracle.traces(3, params.flat, batch))
        chosen = range(SIZES[3]) if batch is None else batch
        assert sum(len(y) for _, y in held) == len(chosen)
        expected = sorted(float(np.sum(data[3][1][s])) for s in chosen)
        assert np.allclose(sorted(float(np.sum(t)) for _, y in held for t in y), expected)


# ------------------------------------------------------------------------ the problem


def test_problems_are_immutable_and_say_what_they_are():
    model, _, problem, _ = build(14)
    assert repr(problem).startswith("DeepProblem(4 clients, 18 sequences of 2–4 tokens, DeepAtt")
    assert problem.client_sizes.tolist() == list(SIZES)
    assert problem.sequence_weights.sum() == pytest.approx(1.0)
    again = pickle.loads(pickle.dumps(problem))
    for held in (problem, again, problem.subset([1])):
        with pytest.raises(ValueError, match="read-only"):
            held.groups[0].tokens[0] = 0.0
        with pytest.raises(AttributeError):
            held.kernel_ridge = 1.0
    assert same_bits(again.groups[1].targets, problem.groups[1].targets)
    assert again.model == model


def test_data_are_copied():
    model = build(15)[0]
    tokens, targets = np.ones((2, 3, 3)), np.ones((2, 3, 2))
    problem = la.deep_problem(model, [(tokens, targets)], ridge=0.0)
    tokens[:] = 7.0
    assert (problem.groups[0].tokens == 1.0).all()


def test_bad_problems_are_refused():
    model, data, *_ = build(16)
    x, y = data[0]
    refused = [
        ((None, data), {}, "model must be DeepAttention, got NoneType"),
        ((model, []), {}, "clients must hold at least one client, got none"),
        ((model, [x]), {}, r"clients\[0\] must be a pair \(tokens, targets\), got list"),
        ((model, [([], [])]), {}, r"clients\[0\] must hold at least one sequence"),
        ((model, [(x, y), ([np.ones((2, 4))], [np.ones((2, 2))])]), {},
         r"clients\[1\] tokens must have 3 channels like the model, got 4"),
        ((model, [([np.ones((2, 3))], [np.ones((2, 1))])]), {},
         r"clients\[0\] targets must have 2 outputs like the model, got 1"),
        ((model, [(x, y[:-1])]), {}, r"clients\[0\] targets must hold 3 entries"),
        ((model, data), {"ridge": -1.0}, "ridge must be >= 0, got -1.0"),
        ((model, data), {"ridge": {"kernel": 1.0}}, "ridge must name exactly 'kernel' and 'value'"),
        ((model, data), {"ridge": {"kernel": 1.0, "value": -2}}, r"ridge\['value'\] must be >= 0"),
        ((model, data), {"weights": "eqal"}, "weights must be None, 'equal' or an array"),
        ((model, data), {"weights": [0.5, 0.5]}, "weights must have 4 entries, got 2"),
    ]  # fmt: skip
    for arguments, options, message in refused:
        with pytest.raises((ValueError, TypeError), match=message):
            la.deep_problem(*arguments, **({"ridge": 0.1} | options))
    with pytest.raises(ValueError, match=r"clients must be distinct numbers in 0\.\.3, got \[4\]"):
        la.deep_problem(model, data, ridge=0.1).subset([4])


def test_what_needs_one_layer_says_so():
    _, _, problem, params = build(17)
    columns = la.run(la.fed_avg(), problem, params, **RUN).columns
    assert list(columns) == [
        "objective", "kernel_gradient_norm", "value_gradient_norm", "kernel_drift", "value_drift",
        "kernel_trained", "local_lr", "floats_up", "floats_down", "multiply_adds",
    ]  # fmt: skip
    only = la.run(la.fed_avg(), problem, params, metrics=["floats_up", "objective"], **RUN)
    assert set(only.columns) == {"floats_up", "objective"}
    for name in ("profile", "gap"):
        with pytest.raises(ValueError, match=f"metrics must leave out '{name}' for a deep problem"):
            la.run(la.fed_avg(), problem, params, metrics=[name], **RUN)
    safe = la.fed_frozen(warmup_rounds=3, frozen_lr="safe")
    with pytest.raises(TypeError, match="single-layer Problem for frozen_lr='safe', got DeepProbl"):
        la.run(safe, problem, params, **RUN)
    for rule in ("profile", "observable", "certified"):
        method = la.fed_frozen(warmup_rounds=la.freeze_rule(rule))
        with pytest.raises(
            TypeError, match="single-layer Problem for freeze_rule, got DeepProblem"
        ):
            la.run(method, problem, params, **RUN)
    for call in (la.Joint, la.KernelProfile, lambda p: la.safe_step(p, params)):
        with pytest.raises(TypeError, match="problem must be a single-layer Problem"):
            call(problem)
    with pytest.raises(ValueError, match="params must have the blocks of the model"):
        la.run(la.fed_avg(), problem, la.Params.merged(np.eye(3), np.ones((3, 2))), **RUN)
    with pytest.raises(TypeError, match=r"problem must be a Problem, .* got list"):
        la.run(la.fed_avg(), [], params, **RUN)
