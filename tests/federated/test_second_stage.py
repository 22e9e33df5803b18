"""Any method as the second stage of FedFrozen, on what moves, with memories of its own."""

import dataclasses

import numpy as np
import pytest
from bridge import same_bits
from method_cases import check_continued

import linattn as la

T, RUN = 3, {"rounds": 9, "local_steps": 4, "local_lr": 0.02, "record_params": True}
NOISY = {"participation": 0.5, "batch_size": 3, "seed": 2}
SECOND = {
    "fed_avg": la.fed_avg,
    "momentum": lambda: la.fed_avg(server_momentum=0.9),
    "fed_prox": lambda: la.fed_prox(prox=0.5),
    "scaffold": la.scaffold,
    "moon": lambda: la.moon(weight=0.3),
    "fed_adam": lambda: la.fed_adam(server_lr=0.05),
    "fed_nova": la.fed_nova,
    "pulled": lambda: la.Method("pulled", penalty_gradient=lambda c, i, own, w, batch: 0.3 * w),
}


def value_only(method):
    """The same method, which never trains the kernel."""
    inner = method.plan

    def plan(context, memory):
        asked = inner(context, memory)
        moving = context.params.layout.value_blocks
        return asked._replace(trained=asked.trained & moving)

    return dataclasses.replace(method, plan=plan)


def warmed(problem, params, **noise):
    return la.run(la.fed_avg(), problem, params, **(RUN | noise | {"rounds": T}))


@pytest.mark.parametrize("noise", [{}, NOISY], ids=["full", "noisy"])
@pytest.mark.parametrize("name", SECOND)
def test_the_stage_is_the_method_on_the_value_block_from_there(
    small_problem, small_params, name, noise
):
    method = la.fed_frozen(warmup_rounds=T, frozen=SECOND[name]())
    found = la.run(method, small_problem, small_params, **(RUN | noise))
    start = warmed(small_problem, small_params, **noise)
    alone = la.run(
        value_only(SECOND[name]()), small_problem, start.params, start_round=T, **(RUN | noise)
    )
    for a, b in zip(found.path[T:], alone.path, strict=True):
        np.testing.assert_allclose(a.flat, b.flat, rtol=1e-13, atol=1e-14)
    assert all(same_bits(a, b) for a, b in zip(found.path[: T + 1], start.path, strict=True))
    assert all((p.kernel == found.path[T].kernel).all() for p in found.path[T:])
    assert found.freeze_round == T
    for cost in ("floats_up", "multiply_adds"):
        np.testing.assert_array_equal(found.columns[cost][T + 1 :], alone.columns[cost][1:])


@pytest.mark.parametrize("name", ["fed_avg", "scaffold"])
def test_names_are_methods(small_problem, small_params, name):
    one = la.run(la.fed_frozen(warmup_rounds=T, frozen=name), small_problem, small_params, **RUN)
    method = la.fed_frozen(warmup_rounds=T, frozen=SECOND[name]())
    two = la.run(method, small_problem, small_params, **RUN)
    assert all(same_bits(a, b) for a, b in zip(one.path, two.path, strict=True))


@pytest.mark.parametrize("name", ["scaffold", "moon", "momentum"])
def test_a_run_in_two_pieces_is_the_run(small_problem, small_params, name):
    method = la.fed_frozen(warmup_rounds=T, frozen=SECOND[name]())
    options = RUN | NOISY
    check_continued(lambda: method, small_problem, small_params, (2, T, 6), **options)


def test_memories_begin_with_the_stage(small_problem, small_params):
    begun = {"server": [], "client": []}

    def server(context):
        begun["server"].append(context.round)
        return 0

    def client(context, i):
        begun["client"].append(context.round)
        return 0

    counted = la.Method(
        "counted", server_memory=server, client_memory=client,
        update_client=lambda context, i, held, own, end: own + 1,
        aggregate=lambda context, held, proposal: (proposal.mean, (held or 0) + 1),
    )  # fmt: skip
    method = la.fed_frozen(warmup_rounds=T, frozen=counted)
    found = la.run(method, small_problem, small_params, **RUN)
    assert begun["server"][0] == 0  # may refuse before the warm-up
    assert set(begun["server"][1:]) == set(begun["client"]) == {T}
    stage, clients = found.memory.server, found.memory.clients
    assert stage.second == RUN["rounds"] - T
    assert [own.second for own in clients.values()] == [RUN["rounds"] - T] * 4


def test_what_stays_stays_whatever_the_stage_returns(small_problem, small_params):
    restless = la.Method(
        "restless", aggregate=lambda context, held, proposal: (proposal.mean + 1.0, held)
    )
    method = la.fed_frozen(warmup_rounds=T, frozen=restless)
    found = la.run(method, small_problem, small_params, **RUN)
    assert (found.path[-1].kernel == found.path[T].kernel).all()
    assert (found.path[-1].value != found.path[T].value).all()


def test_a_stage_has_a_step_a_participation_and_a_review_of_its_own(small_problem, small_params):
    reviewed = []
    method = la.fed_frozen(
        warmup_rounds=la.FreezeRule("at once", lambda context, proposal: True),
        frozen=la.Method("watched", review=lambda c, m, p: reviewed.append(c.round)),
        frozen_lr=0.01, frozen_participation=0.5,
    )  # fmt: skip
    found = la.run(method, small_problem, small_params, **RUN)
    assert found.freeze_round == 1
    assert reviewed == list(range(1, RUN["rounds"]))
    assert found.columns["local_lr"][1:].tolist() == [0.02] + [0.01] * 8
    value = small_params.value.size
    assert found.columns["floats_up"][3:].tolist() == [2 * value] * 7


def test_nature_is_that_of_both_stages():
    def nature(frozen):
        return la.fed_frozen(warmup_rounds=T, frozen=frozen).nature

    assert nature("fed_avg") == la.Nature(masked=True)
    assert nature("scaffold") == la.Nature(corrected=True, masked=True, memory=True)
    assert nature(la.fed_prox(prox=1.0)) == la.Nature(proximal=True, masked=True)
    assert nature("one_shot").server_step
    ruled = la.fed_frozen(warmup_rounds=la.freeze_rule("profile"))
    assert ruled.nature == la.Nature(masked=True, memory=True)


def test_refusals(small_problem, small_params):
    with pytest.raises(ValueError, match="mine exchanges the oracle"):
        la.fed_frozen(warmup_rounds=T, frozen=la.Method("mine", oracle=lambda oracle: oracle))
    with pytest.raises(ValueError, match="frozen must be one of 'fed_avg', 'scaffold', 'one_shot'"):
        la.fed_frozen(warmup_rounds=T, frozen="moon")

    def refuse(context):
        raise TypeError("not this problem")

    method = la.fed_frozen(warmup_rounds=T, frozen=la.Method("picky", server_memory=refuse))
    with pytest.raises(TypeError, match="not this problem"):
        la.run(method, small_problem, small_params, **RUN)


def test_repr_names_the_stage():
    for frozen, words in ((la.fed_prox(prox=0.5), "fed_prox(0.5)"), ("one_shot", "one_shot")):
        method = la.fed_frozen(warmup_rounds=4, frozen=frozen)
        assert repr(method) == f"Method(fed_frozen(4, {words}))"
