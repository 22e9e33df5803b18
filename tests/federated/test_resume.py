"""Continued runs: bit for bit from any round, with the memory of the run that is continued."""

import pickle

import numpy as np
import pytest
from bridge import make, same_bits
from method_cases import check_continued

import linattn as la

NOISE = {"batch_size": 2, "participation": 0.5, "seed": 4}
BASE = {"local_steps": 4, "record_params": True}
METHODS = {
    "fed_avg": la.fed_avg,
    "fed_frozen": lambda: la.fed_frozen(warmup_rounds=4, frozen_lr="safe"),
    **{
        rule: (lambda rule=rule: la.fed_frozen(warmup_rounds=la.freeze_rule(rule)))
        for rule in ("profile", "observable", "certified")
    },
    "fed_adam": la.fed_adam,
    "fed_nova": la.fed_nova,
    "frozen apart": lambda: la.fed_frozen(warmup_rounds=4, frozen_participation=0.25),
    "one shot": lambda: la.fed_frozen(warmup_rounds=4, frozen="one_shot"),
}


def counting():
    """A method with memories on both sides: client visits and server rounds shift the direction."""

    def direction(context, client, server, own):
        return la.Direction(0.0, np.full(context.params.layout.size, 1e-3 * (own + server)))

    def aggregate(context, server, proposal):
        return proposal.mean, server + 1

    return la.Method(
        "counting",
        direction=direction,
        client_memory=lambda context, client: float(client),
        update_client=lambda context, client, server, own, end: own + 1.0,
        server_memory=lambda context: 0,
        aggregate=aggregate,
    )


METHODS["counting"] = counting


@pytest.mark.parametrize("noise", [{}, NOISE])
@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("name", list(METHODS))
def test_resume_is_bit_for_bit(name, kind, noise):
    *_, problem, params = make(21, kind)
    options = {**BASE, "local_lr": la.safe_step(problem, params), **noise}
    check_continued(METHODS[name], problem, params, (1, 3, 6), rounds=8, **options)


@pytest.mark.parametrize(
    "name", sorted({*METHODS, "fed_tp", "local_attention", "scaffold", "momentum"} - {"fed_adam"})
)
def test_after_a_divergence_the_last_good_state_is_handed_on(name):
    *_, problem, params = make(21)
    options = {"local_steps": 4, "local_lr": 20 * la.safe_step(problem, params), **NOISE}
    more = {
        "fed_tp": lambda: la.fed_tp(embedding_dim=2, blocks=("kernel",), server_lr=1.0),
        "local_attention": lambda: la.local_attention(blocks=("kernel",)),
        "scaffold": la.scaffold,
        "momentum": lambda: la.fed_avg(server_momentum=0.9),
    }
    method = (METHODS | more)[name]
    lost = la.run(method(), problem, params, rounds=40, **options)
    assert lost.outcome.status == "diverged"
    last = lost.outcome.round
    good = la.run(method(), problem, params, rounds=last, **options)
    assert same_bits(lost.params, good.params)
    assert pickle.dumps(plain(lost.memory)) == pickle.dumps(plain(good.memory))
    for left, right in zip(lost.client_params, good.client_params, strict=True):
        assert same_bits(left, right)
    again = la.run(
        method(), problem, lost.params, rounds=40, start_round=last, memory=lost.memory, **options
    )
    assert again.outcome == lost.outcome


def plain(memory):
    """What a memory holds, in an order of its own."""
    traffic = memory.traffic
    held = [sorted(part.items()) for part in (traffic._version, traffic._held, memory.clients)]
    return memory.server, held, memory.freeze_round, dict(memory.origin)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"method": la.fed_avg()}, "the same method, got 'counting' then and 'fed_avg' now"),
        ({"start_round": 4}, "the same start_round, got 3 then and 4 now"),
        ({"local_lr": 0.02}, r"the same local_lr, got 0\.01 then and 0\.02 now"),
        ({"local_steps": [4, 4, 5]}, "the same local_steps, got 4 then and"),
        ({"seed": 5}, "the same seed, got 4 then and 5 now"),
        ({"batch_size": None}, "the same batch_size, got 2 then and None now"),
        ({"participation": 1.0}, r"the same participation, got 0\.5 then and 1\.0 now"),
        ({"sampling": "weighted"}, "the same sampling, got 'uniform' then and 'weighted' now"),
        ({"stragglers": 0.1}, "the same stragglers"),
        ({"memory": 3}, "memory must be the `memory` of a result, got int"),
    ],
)
def test_a_memory_of_another_run_is_refused(change, sentence):
    *_, problem, params = make(22)
    options = {"local_steps": 4, "local_lr": 0.01, **NOISE}
    first = la.run(counting(), problem, params, rounds=3, **options)
    rest = {"method": counting(), "start_round": 3, "memory": first.memory, **options} | change
    with pytest.raises(ValueError, match=sentence):
        la.run(rest.pop("method"), problem, first.params, rounds=6, **rest)


def test_a_memory_of_another_model_is_refused():
    *_, problem, params = make(22)
    *_, factored = make(22, "factored")
    options = {"local_steps": 4, "local_lr": 0.01}
    first = la.run(la.fed_avg(), problem, params, rounds=1, **options)
    with pytest.raises(ValueError, match="memory must come from a run of the same model"):
        la.run(la.fed_avg(), problem, factored, rounds=2, start_round=1, memory=first.memory,
               **options)  # fmt: skip


@pytest.mark.parametrize("name", list(METHODS))
def test_no_round_at_all_can_be_continued(name):
    *_, problem, params = make(22)
    options = {"local_steps": 4, "local_lr": 0.01, **NOISE}
    none = la.run(METHODS[name](), problem, params, rounds=0, **options)
    whole = la.run(METHODS[name](), problem, params, rounds=3, **options)
    rest = la.run(METHODS[name](), problem, params, rounds=3, memory=none.memory, **options)
    assert same_bits(rest.params, whole.params)


def test_one_memory_starts_several_runs():
    *_, problem, params = make(22)
    options = {**BASE, "local_lr": 0.01, **NOISE}
    first = la.run(counting(), problem, params, rounds=3, **options)
    again = [
        la.run(counting(), problem, first.params, rounds=6, start_round=3, memory=first.memory,
               **options)
        for _ in range(2)
    ]  # fmt: skip
    assert same_bits(again[0].params, again[1].params)
    assert same_bits(again[0].columns["floats_down"], again[1].columns["floats_down"])


def test_start_round_decides_the_streams():
    *_, problem, params = make(23)
    options = {**BASE, "local_lr": 0.01, **NOISE}
    zero = la.run(la.fed_avg(), problem, params, rounds=2, **options)
    two = la.run(la.fed_avg(), problem, params, rounds=4, start_round=2, **options)
    assert not same_bits(zero.params, two.params)


def test_a_start_beyond_the_end_is_refused():
    *_, problem, params = make(23)
    with pytest.raises(ValueError, match="start_round must be <= rounds = 4, got 5"):
        la.run(la.fed_avg(), problem, params, rounds=4, start_round=5, local_steps=1, local_lr=0.1)
