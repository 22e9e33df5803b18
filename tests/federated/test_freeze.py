"""Freeze rules (C13): when they fire, what the run equals then, and what probing costs."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import reference as ref
from bridge import from_instance, relative_error, same_bits, to_params, to_theta
from method_cases import deep_case, equal_runs

import linattn as la
from linattn.federated import FreezeRule
from linattn.streams import stream

RULES, KINDS = ("profile", "observable", "certified"), ("merged", "factored")
ROUNDS, STEPS, NOISE = 25, 8, {"batch_size": 2, "participation": 0.5, "seed": 4}


@functools.cache
def drifting(kind):
    """Few sequences, strong heterogeneity, many local steps: warm-up stops paying early."""
    rng = np.random.default_rng({"merged": 7, "factored": 14}[kind])
    inst = ref.random_instance(
        rng, dim=3, num_outputs=2, num_clients=4, sequences=(3, 4), tokens=(4, 5), noise=0.2,
        value_ridge=0.05, kernel_ridge=0.02, heterogeneity=(0.6, 0.3, 2.0), readout="token",
    )  # fmt: skip
    theta, V = ref.random_params(rng, inst, kind, 1)
    options = {"rounds": ROUNDS, "local_steps": STEPS, "local_lr": ref.safe_step(inst, theta)}
    twin = ref.fedavg(inst, theta, 0 * V, trace=False, **options)
    return inst, from_instance(inst), to_params(theta, 0 * V), options, twin


def run(method, kind, **changes):
    _, problem, params, options, _ = drifting(kind)
    return la.run(method, problem, params, record_params=True, **(options | changes))


def rule_method(rule, frozen_lr=None):
    return la.fed_frozen(warmup_rounds=la.freeze_rule(rule), frozen_lr=frozen_lr)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES)
def test_the_rule_fires_where_the_twin_says(rule, kind):
    inst, *_, twin = drifting(kind)
    result = run(rule_method(rule), kind)
    assert result.freeze_round == ref.freeze_round(inst, twin.path, rule)


def test_the_cases_are_not_empty():
    """Every rule fires in both cases, and not all at the same round."""
    fired = [run(rule_method(rule), kind).freeze_round for rule in RULES for kind in KINDS]
    assert all(1 <= t < ROUNDS for t in fired)
    assert len(set(fired)) >= 4


@pytest.mark.parametrize("frozen_lr", [None, "safe"])
@pytest.mark.parametrize("noise", [{}, NOISE])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES)
def test_the_run_equals_fed_frozen_to_the_bit(rule, kind, noise, frozen_lr):
    found = run(rule_method(rule, frozen_lr), kind, **noise)
    length = ROUNDS if found.freeze_round is None else found.freeze_round
    fixed = run(la.fed_frozen(warmup_rounds=length, frozen_lr=frozen_lr), kind, **noise)
    # The rejected round is counted, and what absentees fetch.
    equal_runs(found, fixed, but=("floats_up", "floats_down", "multiply_adds"))
    if rule != "certified" or not noise:
        assert same_bits(found.columns["floats_down"], fixed.columns["floats_down"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES)
def test_probing_is_counted(rule, kind):
    _, problem, params, *_ = drifting(kind)
    found = run(rule_method(rule), kind)
    kernel, value = params.layout.size - params.value.size, params.value.size
    size, outputs = params.num_heads * problem.dim, problem.num_outputs
    probe = {
        "profile": 0,
        "observable": kernel,
        "certified": size * (size + 1) // 2 + size * outputs + 1,
    }[rule]
    t = found.freeze_round
    per_client = [kernel + value] + [kernel + value + probe] * (t - 1)
    per_client += [kernel + value + probe + value] + [value] * (ROUNDS - t - 1)
    assert found.columns["floats_up"].tolist() == [0, *(4 * x for x in per_client)]


@pytest.mark.parametrize("participation", [1.0, 0.5])
def test_certified_asks_everybody(participation):
    """In round t = 1 it needs of all clients what one exact round of them needs, and F_i."""
    _, problem, params, *_ = drifting("merged")
    exact = la.fed_frozen(warmup_rounds=1, frozen="one_shot")
    never = replace(la.freeze_rule("certified"), fires=lambda context, proposal: False)
    asked, plain, solved = (
        run(method, "merged", rounds=2, participation=participation).columns
        for method in (la.fed_frozen(warmup_rounds=never), la.fed_avg(), exact)
    )
    more = {n: asked[n][2] - plain[n][2] for n in ("floats_up", "floats_down", "multiply_adds")}
    assert more["floats_up"] == solved["floats_up"][2] + problem.num_clients
    assert more["multiply_adds"] == solved["multiply_adds"][2]
    assert more["floats_down"] == (1 - participation) * problem.num_clients * params.kernel.size


def test_a_rule_that_never_fires_is_fed_avg():
    never = la.Method("never", review=lambda context, memory, proposal: None)
    plain = run(la.fed_avg(), "merged")
    assert all(same_bits(a, b) for a, b in zip(plain.path, run(never, "merged").path, strict=True))


def test_certified_warmup_rounds_lower_the_profile():
    result = run(rule_method("certified"), "merged")
    profile = result.columns["profile"]
    assert result.freeze_round is not None
    assert (np.diff(profile[1 : result.freeze_round + 1]) < 0).all()


def test_the_probe_uses_the_applied_weights():
    """Observable rule under sampling: Σ w_i g_i⁰ over the participants, by hand."""
    inst, *_ = drifting("merged")
    plain = run(la.fed_avg(), "merged", **NOISE)
    found = run(rule_method("observable"), "merged", **NOISE).freeze_round
    for t in range(1, ROUNDS if found is None else found + 1):
        chosen = np.sort(stream(4, "participation", t).choice(4, 2, replace=False)).tolist()
        theta, V = to_theta(plain.path[t])
        slopes = {}
        for i in chosen:
            batch = stream(4, "batch", i, t).choice(
                len(inst.clients[i]), min(2, len(inst.clients[i])), replace=False
            )
            slopes[i] = ref.client_gradient(inst, i, theta, V, batch)
        slope, _ = ref.average(ref.applied_weights(inst, chosen), slopes)
        move = ref.add(theta, to_theta(plain.path[t + 1])[0], -1)
        assert (ref.dot(slope, move) <= 0) == (t == found)


def test_rules_are_named():
    assert repr(la.freeze_rule("profile")) == "FreezeRule('profile')"
    assert isinstance(la.freeze_rule("observable"), FreezeRule)
    with pytest.raises(ValueError, match="name must be one of 'profile', 'observable'"):
        la.freeze_rule("profil")


def kernel_moves(path):
    """How far the kernel moves in each round, relative to where it was."""
    flats = np.array([params.kernels().ravel() for params in path])
    return np.linalg.norm(np.diff(flats, axis=0), axis=1) / np.linalg.norm(flats[:-1], axis=1)


def settles_below(share, seen=None):
    """A rule of one's own: the kernel moves by less than a share of itself."""

    def fires(context, proposal):
        if seen is not None:
            seen.append(context.round)
        after = la.Params(context.params.layout, proposal.mean).kernels()
        moved = np.linalg.norm(after - context.params.kernels())
        return bool(moved < share * np.linalg.norm(context.params.kernels()))

    return FreezeRule(f"settles below {share}", fires, uploads=lambda context: 5)


def test_a_rule_of_ones_own():
    plain = run(la.fed_avg(), "merged")
    moves, seen = kernel_moves(plain.path), []
    share = float(np.sort(moves)[10])
    found = run(la.fed_frozen(warmup_rounds=settles_below(share, seen)), "merged")
    fires = next(t for t in range(1, ROUNDS) if moves[t] < share)
    assert found.freeze_round == fires > 1
    assert seen == list(range(1, fires + 1))  # not asked at t = 0, nor after it fired
    fixed = run(la.fed_frozen(warmup_rounds=fires), "merged")
    assert all(same_bits(a, b) for a, b in zip(found.path, fixed.path, strict=True))
    extra = (found.columns["floats_up"] - fixed.columns["floats_up"])[1:]
    kernel = plain.params.layout.size - plain.params.value.size
    rejected = 4 * (kernel + plain.params.value.size + 5)
    assert extra.tolist() == [0] + [20] * (fires - 1) + [rejected] + [0] * (ROUNDS - fires - 1)


def test_a_rule_of_ones_own_reads_local_steps_and_runs_on_deep_models():
    seen = []

    def fires(context, proposal):
        seen.append(proposal.trace.gradients.shape)
        return context.round == 2

    problem, params = deep_case()
    rule = FreezeRule("second", fires, records_steps=True)
    found = la.run(
        la.fed_frozen(warmup_rounds=rule), problem, params, rounds=4, local_steps=3, local_lr=0.01
    )
    assert found.freeze_round == 2
    assert seen == [(3, 4, params.layout.size)] * 2


def test_the_frozen_stage_of_a_rule_is_the_frozen_stage():
    """Value block after the rule fired: explicit rounds on A_i and C_i from the recorded path."""
    inst, _, _, options, _ = drifting("merged")
    result = run(rule_method("profile"), "merged")
    t = result.freeze_round
    theta, V = to_theta(result.path[t])
    values = ref.frozen_rounds(
        inst, theta, V, rounds=ROUNDS - t, local_steps=STEPS, step_size=options["local_lr"]
    )
    assert relative_error(result.params.value, values[-1]) < 1e-10
