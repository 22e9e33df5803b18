"""The slots of a method record: what each of them sees, and when."""

import numpy as np
import pytest
from bridge import make, relative_error, same_bits

import linattn as la
from linattn.federated import Cost

BASE = {"rounds": 3, "local_steps": 2, "local_lr": 0.01, "record_params": True}


@pytest.fixture(scope="module")
def federation():
    *_, problem, params = make(31, num_clients=4)
    return problem, params


def test_a_method_is_its_name_and_its_slots():
    assert repr(la.fed_avg()) == "Method(fed_avg)"
    assert repr(la.fed_frozen(warmup_rounds=3)) == "Method(fed_frozen(3))"
    rule = la.fed_frozen(warmup_rounds=la.freeze_rule("profile"))
    assert repr(rule) == "Method(fed_frozen(profile))"


def test_a_penalty_sees_the_memory_of_its_client_from_the_first_step(federation):
    problem, params = federation
    seen = []

    def penalty(context, client, own, flat, batch):
        seen.append((context.round, client, own))
        return np.zeros_like(flat)

    method = la.Method(
        "remember", penalty_gradient=penalty, client_memory=lambda context, client: 10 * client
    )
    la.run(method, problem, params, **(BASE | {"rounds": 1, "local_steps": 1}))
    assert seen == [(0, i, 10 * i) for i in range(4)]


def test_client_memory_is_made_once_and_only_for_participants(federation):
    problem, params = federation
    made = []

    def remember(context, client):
        made.append((context.round, client))
        return 0

    method = la.Method(
        "visits",
        client_memory=remember,
        update_client=lambda context, client, server, own, end: own + 1,
    )
    result = la.run(method, problem, params, participation=0.5, seed=2, **BASE)
    clients = [client for _, client in made]
    assert len(set(clients)) == len(clients)
    assert sum(result.memory.clients.values()) == 2 * BASE["rounds"]
    assert set(result.memory.clients) == set(clients)


def test_a_server_step_of_its_own(federation):
    """A slower server: half way to the weighted mean, twice, by hand."""
    problem, params = federation

    def half_way(context, memory, proposal):
        expected = context.weights @ proposal.ends
        assert relative_error(proposal.mean, expected) < 1e-15
        return 0.5 * (context.params.flat + proposal.mean), memory

    slow = la.run(la.Method("half", aggregate=half_way), problem, params, **BASE)
    full = la.run(la.fed_avg(), problem, params, **BASE)
    middle = 0.5 * (params.flat + full.path[1].flat)
    assert relative_error(slow.path[1].flat, middle) < 1e-15


def test_a_plan_may_train_one_block(federation):
    problem, params = federation
    only_kernel = la.Method(
        "kernel", plan=lambda context, memory: la.Plan(frozenset({"kernel"}), context.local_lr)
    )
    result = la.run(only_kernel, problem, params, **BASE)
    assert all(same_bits(at.value, params.value) for at in result.path)
    assert not same_bits(result.params.kernel, params.kernel)
    assert result.columns["kernel_trained"][1:].all()
    gradient = la.Joint(problem).gradient(params)
    one = la.run(only_kernel, problem, params, **(BASE | {"rounds": 1, "local_steps": 1}))
    assert relative_error(one.params.kernel, params.kernel - 0.01 * gradient.kernel) < 1e-13
    assert result.columns["floats_up"][1:].tolist() == [4 * params.kernel.size] * 3


def test_blocks_that_alternate_reset_the_freeze_round(federation):
    problem, params = federation

    def alternate(context, memory):
        name = "kernel" if context.round % 2 else "value"
        return la.Plan(frozenset({name}), context.local_lr)

    runs = [
        la.run(la.Method("a", plan=alternate), problem, params, **(BASE | {"rounds": rounds}))
        for rounds in (1, 2, 3)
    ]
    assert [run.freeze_round for run in runs] == [0, None, 2]


def test_a_plan_of_an_unknown_block_is_refused(federation):
    problem, params = federation
    method = la.Method("bad", plan=lambda context, memory: la.Plan(frozenset({"query"}), 0.1))
    with pytest.raises(ValueError, match="plan of bad must name blocks among kernel, value"):
        la.run(method, problem, params, **BASE)


def test_one_prox_per_round(federation):
    problem, params = federation
    method = la.Method("bad", direction=lambda context, client, *_: la.Direction(float(client)))
    with pytest.raises(ValueError, match=r"direction must give all participants .* same prox"):
        la.run(method, problem, params, **BASE)


def test_a_proximal_term_shrinks_the_drift(federation):
    problem, params = federation
    options = BASE | {"local_steps": 20}
    drifts = [
        la.run(
            la.Method("prox", direction=lambda *_, prox=prox: la.Direction(prox)),
            problem, params, **options,
        ).columns["value_drift"][1]
        for prox in (0.0, 1.0, 10.0)
    ]  # fmt: skip
    assert drifts[0] > drifts[1] > drifts[2]


def test_extra_uploads_are_per_participant(federation):
    problem, params = federation
    method = la.Method("extra", extra_cost=lambda *_: Cost(floats_up=7))
    columns = la.run(method, problem, params, participation=0.5, **BASE).columns
    assert columns["floats_up"][1:].tolist() == [2 * (params.layout.size + 7)] * 3


def test_a_method_that_records_steps_sees_them(federation):
    problem, params = federation
    shapes = []

    def aggregate(context, memory, proposal):
        shapes.append(proposal.trace.gradients.shape)
        return proposal.mean, memory

    method = la.Method("recorded", aggregate=aggregate, records_steps=True)
    result = la.run(method, problem, params, **BASE)
    assert shapes == [(2, 4, params.layout.size)] * 3
    plain = la.run(la.fed_avg(), problem, params, **BASE)
    assert same_bits(result.params, plain.params)


KERNEL = frozenset({"kernel"})


@pytest.mark.parametrize(
    ("slot", "answer", "sentence"),
    [
        ("direction", None, "direction of mine must return a Direction, got None."),
        ("direction", la.Direction(0.0, np.zeros(3)), "must return {size} numbers, got an array"),
        ("direction", la.Direction(0.0, np.zeros((3, 1))), "shape (3, 1) and dtype float64."),
        ("direction", la.Direction(0.0, [1j]), "dtype complex128."),
        ("direction", la.Direction(-1.0), "prox of direction of mine must be >= 0, got -1.0."),
        (
            "direction",
            la.Direction(np.nan),
            "direction of mine must be a finite number >= 0, got nan.",
        ),
        ("penalty_gradient", np.zeros(3), "penalty_gradient of mine must return {size} numbers"),
        ("start", np.zeros(3), "start of mine must return {size} numbers, got an array"),
        ("personal", None, "personal of mine must return {size} numbers"),
        ("aggregate", np.zeros(3), "aggregate of mine must return parameters and memory, got arr"),
        ("aggregate", (np.zeros(3), None), "aggregate of mine must return {size} numbers"),
        ("plan", None, "plan of mine must return a Plan, got None."),
        ("plan", la.Plan("kernel", 0.1), "must name blocks among kernel, value in a frozenset"),
        ("plan", la.Plan(frozenset("a"), 0.1), "in a frozenset, got frozenset({{'a'}})."),
        ("plan", la.Plan(KERNEL, 0.0), "local_lr of plan of mine must be > 0, got 0.0."),
        ("plan", la.Plan(KERNEL, 0.1, (KERNEL,)), "must give blocks to 4 participants, got 1."),
        ("extra_cost", 3, "extra_cost of mine must return a Cost, got 3."),
        ("extra_cost", Cost(0.5), "extra_cost of mine must be an integer >= 0, got 0.5."),
        ("sampling", 0.5, "sampling of mine must return a Sampling, got 0.5."),
        ("oracle", None, "oracle of mine must return an Oracle, got None."),
        ("review", 1, "review of mine must accept a round at last, but has rejected 1000"),
    ],
)
def test_what_a_slot_may_not_return(federation, slot, answer, sentence):
    problem, params = federation
    method = la.Method("mine", **{slot: lambda *arguments: answer})
    with pytest.raises((TypeError, ValueError)) as error:
        la.run(method, problem, params, **BASE)
    assert sentence.format(size=params.layout.size) in str(error.value)


def test_any_array_of_the_right_size_will_do(federation):
    problem, params = federation
    size = params.layout.size
    shift = np.linspace(-1.0, 1.0, size).round(2)
    runs = [
        la.run(la.Method("mine", direction=lambda *_, s=same: la.Direction(0.1, s)), problem,
               params, **BASE)
        for same in (shift, shift.tolist(), np.repeat(shift, 2)[::2], shift.astype(">f8"))
    ]  # fmt: skip
    assert all(same_bits(run.params, runs[0].params) for run in runs)
