"""Impossible methods are refused in one sentence: when built, or at the first round."""

import numpy as np
import pytest
from method_cases import case, deep_case
from worlds import world

import linattn as la

RUN = {"rounds": 3, "local_steps": 2, "local_lr": 0.01}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: la.fed_avg(server_momentum=1.0), "server_momentum must be < 1, got 1.0"),
        (lambda: la.fed_avg(server_momentum=-0.1), "server_momentum must be >= 0"),
        (lambda: la.fed_avg(server_lr=0.0), "server_lr must be > 0, got 0.0"),
        (lambda: la.fed_avg(server_lr=[1.0, -1.0]), "server_lr must be > 0 in every round, got -1"),
        (lambda: la.fed_nova(server_lr="fast"), "server_lr must be a number"),
        (lambda: la.fed_adam(beta1=1.0), "beta1 must be < 1, got 1.0"),
        (lambda: la.fed_adam(beta2=-0.5), "beta2 must be >= 0, got -0.5"),
        (lambda: la.fed_yogi(tau=0.0), "tau must be > 0, got 0.0"),
        (lambda: la.fed_yogi(server_lr=[]), "server_lr must have an entry for every round"),
        (lambda: la.fed_prox(prox=-1.0), "prox must be >= 0, got -1.0"),
        (lambda: la.fed_prox(prox="much"), "prox must be a number"),
        (lambda: la.scaffold(option=3), "option must be 1 or 2, got 3"),
        (lambda: la.scaffold(option=True), "option must be 1 or 2, got True"),
        (lambda: la.scaffold(server_lr=0.0), "server_lr must be > 0, got 0.0"),
        (lambda: la.moon(weight=-1.0), "weight must be >= 0, got -1.0"),
        (lambda: la.moon(weight=1.0, temperature=0.0), "temperature must be > 0, got 0.0"),
        (lambda: la.fed_frozen(warmup_rounds=-1), "warmup_rounds must be an integer >= 0, got -1"),
        (lambda: la.fed_frozen(warmup_rounds=1, frozen="scafold"), "did you mean 'scaffold'"),
        (lambda: la.fed_frozen(warmup_rounds=1, freeze="query"), "freeze must be one of 'kernel'"),
        (lambda: la.fed_frozen(warmup_rounds=1, frozen="one_shot", freeze="value"),
         "frozen='one_shot' is about a frozen kernel, got freeze='value'"),
        (lambda: la.fed_frozen(warmup_rounds=1, frozen_participation=0.0),
         "frozen_participation must be > 0 and <= 1, got 0.0"),
        (lambda: la.fed_frozen(warmup_rounds=1, frozen="one_shot", frozen_participation=0.5),
         "frozen_participation must be left out for frozen='one_shot'"),
        (lambda: la.fed_frozen(warmup_rounds=1, frozen="one_shot", frozen_lr=0.1),
         "frozen_lr must be left out for frozen='one_shot', which takes no step, got 0.1"),
        (lambda: la.fed_frozen(warmup_rounds=1, frozen_lr="safe", freeze="value"),
         "frozen_lr='safe' is about a frozen kernel"),
        (lambda: la.fed_frozen(warmup_rounds=la.freeze_rule("profile"), freeze="value"),
         r"warmup_rounds=freeze_rule\(...\) is about a frozen kernel"),
        (lambda: la.fed_part(initial_rounds=-1, rounds_per_group=1), "initial_rounds must be an"),
        (lambda: la.fed_part(initial_rounds=1, rounds_per_group=0), "rounds_per_group must be an"),
        (lambda: la.fed_part(groups="layers", initial_rounds=1, rounds_per_group=1),
         "groups must be one of .*did you mean 'layer'"),
        (lambda: la.fed_part(groups=0, initial_rounds=1, rounds_per_group=1),
         "groups must be an integer >= 1, got 0"),
        (lambda: la.fed_part(order="backward", initial_rounds=1, rounds_per_group=1),
         "order must be one of 'sequential', 'reverse', 'random', got 'backward'"),
        (lambda: la.fed_part_cost(backward_fraction=0.0), "backward_fraction must be > 0"),
        (lambda: la.fed_part_cost(backward_fraction=1.5), "backward_fraction must be"),
        (lambda: la.fed_tp(server_lr=1.0), "embedding_dim must be an integer >= 1, got None"),
        (lambda: la.fed_tp(embedding_dim=2, server_lr=0.0), "server_lr must be > 0"),
        (lambda: la.fed_tp(embedding_dim=3, embeddings=np.eye(2), server_lr=1.0),
         "embeddings must have 3 columns, got 2"),
        (lambda: la.fed_tp(embedding_dim=2, embeddings=np.ones(2), server_lr=1.0),
         r"embeddings must have 2 axes, got shape \(2,\)"),
        (lambda: la.fed_tp(embedding_dim=2, hypernetwork="mpl", server_lr=1.0),
         "did you mean 'mlp'"),
        (lambda: la.fed_tp(embedding_dim=2, blocks=(), server_lr=1.0), "blocks must be at least"),
        (lambda: la.fed_tp_newcomers(None, server_lr=1.0), "result must be Result, got NoneType"),
        (lambda: la.local_attention(blocks=()), "blocks must be at least one block name"),
        (lambda: la.fine_tuned(steps=0), "steps must be an integer >= 1, got 0"),
        (lambda: la.fed_sq(structural=[1.0]), "structural must be Params, got list"),
        (lambda: la.fed_sq(structural=la.Params.merged(np.eye(2), np.ones((2, 1)))),
         "structural must be parameters of a DeepAttention with ReLU gates, got blocks kernel"),
        (lambda: la.selective(budget=0), "budget must be an integer >= 1, got 0"),
        (lambda: la.selective(budget=[1, 0]), r"budget\[1\] must be an integer >= 1, got 0"),
        (lambda: la.selective(budget=1, consistency=-1.0), "consistency must be >= 0"),
        (lambda: la.selective(budget=1, scores="sgn"), "scores must be one of"),
        (lambda: la.solve_selection(-np.ones((2, 2)), [1, 1]), "scores must be >= 0"),
        (lambda: la.solve_selection(np.ones((2, 2)), [1]), "budgets must be 2 integers >= 1"),
    ],
)  # fmt: skip
def test_refused_when_built(build, message):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        build()
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    ("kind", "method", "message"),
    [
        ("deep", la.fed_frozen(warmup_rounds=2, frozen="one_shot"),
         "single-layer Problem for frozen='one_shot', got DeepProblem"),
        ("deep", la.fed_frozen(warmup_rounds=2, frozen_lr="safe"),
         "single-layer Problem for frozen_lr='safe'"),
        ("deep", la.fed_frozen(warmup_rounds=la.freeze_rule("profile"), frozen="scaffold"),
         "single-layer Problem for freeze_rule"),
        ("merged", la.fed_part(groups=3, initial_rounds=1, rounds_per_group=1),
         "groups must be at most 2, the number of blocks, got 3"),
        ("merged", la.fed_tp(embedding_dim=2, server_lr=1.0),
         r"blocks must name blocks of the parameters \(kernel, value\), got 'query'"),
        ("factored", la.fed_tp(embeddings=np.eye(3), server_lr=1.0),
         "embeddings must have 4 rows, one per client, got 3"),
        ("merged", la.local_attention(), "blocks must name blocks of the parameters"),
        ("factored", la.fed_sq(structural=deep_case(0)[1]),
         "problem must be a DeepProblem for fed_sq"),
        ("deep", la.fed_sq(structural=deep_case(0, num_layers=1)[1]),
         "params must have the blocks of the model"),
        ("merged", la.selective(budget=1, always=("head",)),
         r"blocks must name blocks of the parameters \(kernel, value\), got 'head'"),
        ("merged", la.selective(budget=[1, 1]),
         "budget must have 4 entries, one per client, got 2"),
    ],
)  # fmt: skip
def test_refused_at_the_first_round(kind, method, message):
    problem, params, _ = case(kind, 0)
    seen = []
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        la.run(method, problem, params, evaluate=lambda at: seen.append(at) or {}, **RUN)
    assert len(seen) <= 1  # no round was finished
    assert str(caught.value).count("\n") == 0


def test_snr_needs_two_sequences():
    problem = world(sequences_per_client=1)
    params = la.initial_params(problem, value="normal")
    with pytest.raises(ValueError, match="scores='snr' needs two sequences per client"):
        la.run(la.selective(budget=1, scores="snr"), problem, params, **RUN)
