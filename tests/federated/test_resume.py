"""Continued runs: bit for bit from any round, with the memory of the run that is continued."""

import numpy as np
import pytest
from bridge import make, same_bits

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
    whole = la.run(METHODS[name](), problem, params, rounds=8, **options)
    for stop in (1, 3, 6):
        first = la.run(METHODS[name](), problem, params, rounds=stop, **options)
        second = la.run(
            METHODS[name](), problem, first.params, rounds=8, start_round=stop,
            memory=first.memory, **options,
        )  # fmt: skip
        paths = zip(second.path, whole.path[stop:], strict=True)
        assert all(same_bits(a, b) for a, b in paths)
        for column, values in second.columns.items():
            assert same_bits(values[1:], whole.columns[column][stop + 1 :]), column
        assert second.freeze_round == whole.freeze_round
        assert second.history["round"].values.tolist() == list(range(stop, 9))
        assert second.outcome == whole.outcome


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
