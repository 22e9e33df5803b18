"""FedAdam and FedYogi by hand, step schedules of clients and server, and what methods declare."""

import numpy as np
import pytest
from bridge import relative_error, same_bits
from method_cases import KINDS, RUN, case, naive_run

import linattn as la
from linattn.federated.methods.adaptive import Moments


def mean_move(held, x):
    """Σ p_i (w_{i,E} − x) by explicit gradient steps."""
    at = held._replace(params=la.Params(held.params.layout, x))
    return naive_run(at, rounds=1) - x


@pytest.mark.parametrize("name", ["fed_adam", "fed_yogi"])
@pytest.mark.parametrize("kind", KINDS)
def test_against_the_algorithm_entry_by_entry(name, kind):
    held = case(kind, 1)
    beta1, beta2, tau = 0.8, 0.95, 0.01
    server = [0.03, 0.02, 0.01, 0.02]
    x = held.params.flat.copy()
    m, v = np.zeros(x.size), np.full(x.size, tau**2)
    for t in range(RUN["rounds"]):
        delta = mean_move(held, x)
        for j in range(x.size):
            m[j] = beta1 * m[j] + (1 - beta1) * delta[j]
            square = delta[j] ** 2
            if name == "fed_adam":
                v[j] = beta2 * v[j] + (1 - beta2) * square
            elif v[j] > square:
                v[j] = v[j] - (1 - beta2) * square
            elif v[j] < square:
                v[j] = v[j] + (1 - beta2) * square
            x[j] = x[j] + server[t] * m[j] / (np.sqrt(v[j]) + tau)
    build = getattr(la, name)
    method = build(server_lr=server, beta1=beta1, beta2=beta2, tau=tau)
    result = held.run(method)
    assert relative_error(result.params.flat, x) < 1e-12
    assert isinstance(result.memory.server, Moments)
    assert relative_error(result.memory.server.second, v) < 1e-10


def test_both_are_the_same_in_the_first_round_of_small_moves():
    """v_0 = τ² is above Δ²: Yogi subtracts (1 − β₂)Δ², Adam (1 − β₂)(τ² − Δ²)."""
    held = case("merged", 2)
    size = {"server_lr": 0.1, "tau": 10.0}
    adam, yogi = (held.run(build(**size), rounds=1) for build in (la.fed_adam, la.fed_yogi))
    delta = mean_move(held, held.params.flat)
    for run, shrink in ((adam, 0.01 * (100.0 - delta**2)), (yogi, 0.01 * delta**2)):
        expected = held.params.flat + 0.1 * 0.1 * delta / (np.sqrt(100.0 - shrink) + 10.0)
        assert relative_error(run.params.flat, expected) < 1e-13


# ------------------------------------------------------------------------ schedules


def test_an_array_and_a_callable_are_the_same_schedule_and_a_constant_one_is_the_constant():
    held = case("factored", 3)
    sizes = held.step * np.array([1.0, 0.5, 0.25, 0.125])
    schedules = (sizes, lambda t: held.step * 0.5**t, [held.step] * 4, held.step)
    array, function, listed, constant = (
        held.run(la.fed_avg(), local_lr=schedule) for schedule in schedules
    )
    assert same_bits(array.params, function.params)
    assert array.columns["local_lr"][1:].tolist() == sizes.tolist()
    assert same_bits(listed.params, constant.params)
    assert relative_error(array.params.flat, naive_run(held, step=lambda t: 0.5**t)) < 1e-13


def test_a_frozen_stage_follows_the_schedule_unless_it_has_a_step_of_its_own():
    held = case("merged", 4)
    step = held.step
    schedule = [step, 0.5 * step, 0.3 * step, 0.2 * step]
    for own, expected in ((None, schedule), (0.1 * step, [step, *[0.1 * step] * 3])):
        method = la.fed_frozen(warmup_rounds=1, frozen_lr=own)
        found = held.run(method, local_lr=schedule).columns["local_lr"][1:]
        assert found.tolist() == expected


@pytest.mark.parametrize("build", [
    lambda lr: la.fed_avg(server_lr=lr), lambda lr: la.scaffold(server_lr=lr),
    lambda lr: la.fed_nova(server_lr=lr), lambda lr: la.fed_avg(server_lr=lr, server_momentum=0.5),
    lambda lr: la.fed_tp(server_lr=lr, embedding_dim=2),
])  # fmt: skip
def test_server_steps_of_one_round_are_those_of_its_schedule(build):
    held = case("factored", 5)
    decaying = held.run(build(lambda t: 1.0 / (2 + t)), rounds=2)
    first = held.run(build(0.5), rounds=1)
    then = held._replace(params=first.params)
    rest = then.run(build(1.0 / 3.0), start_round=1, memory=first.memory, rounds=2)
    assert same_bits(decaying.params, rest.params)


def test_a_server_step_shrinks_the_move():
    held = case("merged", 6)
    whole, half = (
        held.run(la.fed_avg(server_lr=size), rounds=1).params.flat - held.params.flat
        for size in (1.0, 0.5)
    )
    assert relative_error(half, 0.5 * whole) < 1e-13


# ------------------------------------------------------------------------ nature


@pytest.mark.parametrize(("method", "deviations"), [
    (la.fed_avg(), ()),
    (la.fine_tuned(steps=1), ()),
    (la.fed_prox(prox=0.0), ()),
    (la.fed_avg(server_lr=0.5), ("server_step",)),
    (la.fed_avg(server_momentum=0.5), ("memory", "server_step")),
    (la.fed_prox(prox=0.5), ("proximal",)),
    (la.fed_nova(), ("normalized",)),
    (la.fed_adam(), ("memory", "server_step", "adaptive")),
    (la.fed_yogi(), ("memory", "server_step", "adaptive")),
    (la.scaffold(), ("corrected", "memory")),
    (la.scaffold(server_lr=[0.5]), ("corrected", "memory", "server_step")),
    (la.moon(weight=1.0), ("corrected", "memory")),
    (la.fed_part(initial_rounds=1, rounds_per_group=1), ("masked",)),
    (la.selective(budget=1), ("masked",)),
    (la.local_attention(), ("personal", "memory")),
    (la.fed_tp(server_lr=1.0, embedding_dim=2), ("personal", "memory", "server_step")),
    (la.fed_frozen(warmup_rounds=1), ("masked",)),
    (la.fed_frozen(warmup_rounds=1, frozen_participation=0.5), ("masked", "sampled")),
    (la.fed_frozen(warmup_rounds=1, frozen="scaffold"), ("corrected", "masked", "memory")),
    (la.fed_frozen(warmup_rounds=1, frozen="one_shot"), ("masked", "sampled", "server_step")),
    (la.fed_frozen(warmup_rounds=la.freeze_rule("profile")), ("masked", "memory")),
])  # fmt: skip
def test_methods_declare_their_nature(method, deviations):
    assert method.nature.deviations == deviations
    assert method.nature.is_plain == (not deviations)


@pytest.mark.parametrize(("slot", "flags"), [
    ("direction", {"proximal", "corrected"}), ("penalty_gradient", {"corrected"}),
    ("oracle", {"corrected"}), ("plan", {"masked"}), ("sampling", {"sampled"}),
    ("start", {"personal"}), ("server_memory", {"memory"}), ("client_memory", {"memory"}),
    ("review", {"memory"}), ("aggregate", {"server_step"}), ("update_client", {"memory"}),
    ("personal", set()), ("probe", set()), ("extra_cost", set()),
])  # fmt: skip
def test_a_method_that_declares_nothing_is_the_most_its_slots_could_mean(slot, flags):
    method = la.Method("own", **{slot: lambda *_: None})
    assert set(method.nature.deviations) == flags
    declared = la.Method("own", declared=la.Nature(normalized=True), **{slot: lambda *_: None})
    assert declared.nature == la.Nature(normalized=True)
