"""The question in one call."""

import re

import numpy as np
import pytest
from worlds import world

import linattn as la


@pytest.fixture(scope="module")
def problem():
    return world(sequences_per_client=16, num_tokens=8, dim=4, value_heterogeneity=1.5,
                 covariate_heterogeneity=0.5)  # fmt: skip


@pytest.fixture(scope="module")
def params(problem):
    return la.initial_params(problem, scale=0.6)


@pytest.fixture(scope="module")
def answer(problem, params):
    return la.assess(problem, params=params, local_steps=20, local_lr=0.04, rounds=60)


def said(answer):
    """The lines by their first words."""
    return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in str(answer).splitlines())


def numbers(words):
    return [float(x) for x in re.findall(r"(?<![\w.])\d+\.?\d*(?:e-?\d+)?", words)]


def rounded(value):
    return float(f"{value:.3g}")


def test_answer_is_the_table(answer):
    table, best = answer.table, answer.warmup_star
    assert 0 < best < 60
    assert answer.objective_star == float(table["objective"].min())
    assert answer.objective_never == float(table["objective"].sel(warmup=60))
    assert answer.objective_always == float(table["objective"].sel(warmup=0))
    total = answer.reference + sum(answer.parts.values())
    assert answer.objective_star == pytest.approx(total, rel=1e-12)


def test_every_prediction_is_checked(answer):
    assert [check.claim for check in answer.checks] == ["C9", "C7", "C4", "C15"]
    assert answer.holds


def test_five_lines_say_what_was_found(answer):
    lines = said(answer)
    assert list(lines) == ["best warm-up", "tuned", "exact stage", "predicted", "checked"]
    low, high = answer.plateau
    excess = rounded(answer.objective_star - answer.reference)
    never = rounded(answer.objective_never - answer.reference)
    found = [answer.predicted_star, answer.warmup_star, 60, low, high, excess, never]
    assert numbers(lines["best warm-up"]) == found
    assert numbers(lines["predicted"])[0] == answer.predicted_star
    assert lines["checked"].startswith("4 of 4 hold (C9, C7, C4, C15)")


@pytest.mark.parametrize(("line", "method"), [("tuned", "fed_frozen"),
                                              ("exact stage", "fed_frozen_exact")])  # fmt: skip
def test_tuned_lines_are_of_the_study(answer, line, method):
    words, tuned = said(answer)[line], answer.tuned
    best, average = tuned.best(method), tuned.best("fed_avg")
    excess, other = (float(found.objective[0]) - answer.reference for found in (best, average))
    assert numbers(words)[0] == rounded(excess)
    share = round(100 * abs(other - excess) / other)
    verdict = "saves nothing" if share < 1 else "saves" if excess < other else "costs"
    assert words.rpartition(": ")[2].removeprefix("freezing ").startswith(verdict)
    if share >= 1:
        assert f"{share}% of FedAvg" in words


def test_best_steps_are_interior(answer):
    steps = answer.tuned.table["local_lr"].values
    for method in answer.tuned.methods:
        assert steps.min() < answer.tuned.best(method).local_lr < steps.max()


def test_regret_of_the_prediction_is_read_off_the_measured_table(answer):
    at = float(answer.table["objective"].sel(warmup=answer.predicted_star))
    stake = answer.objective_never - answer.objective_star
    assert answer.predicted_regret == pytest.approx((at - answer.objective_star) / stake, abs=1e-12)
    assert answer.predicted_regret < 0.05


def test_details_are_made_once_when_asked(answer):
    details = answer.details
    assert details is answer.details
    assert set(details["rules"]) == {"profile", "observable", "certified"}
    assert all(0 <= star <= 60 and regret >= 0 for star, regret in details["rules"].values())
    certificate = details["certificate"]["certificate"].values
    assert details["certificate_star"] == np.argmin(certificate)
    assert details["table"] is answer.table


def test_it_can_be_drawn_and_shown_in_a_notebook(answer):
    axes = answer.plot()
    assert {line.get_label() for line in axes.lines} >= {"measured", "predicted", "T*"}
    assert answer._repr_html_().count("<tr>") == 5


def test_given_reference_and_time_budget(problem, params):
    answer = la.assess(
        problem, params=params, local_steps=5, local_lr=0.02, rounds=6, reference=1.5,
        time_budget=1e-6,
    )  # fmt: skip
    assert answer.reference == 1.5
    assert answer.tuned is None
    assert said(answer)["tuned"] == "not compared: the time budget was used up"
    assert said(answer)["predicted"] == "not predicted: the time budget was used up"
    assert [check.claim for check in answer.checks] == ["C9", "C7", "C4"]


def test_long_stages_are_named(problem, params, monkeypatch, capfd):
    monkeypatch.setattr("linattn._progress.PAUSE", 1e-4)
    la.assess(problem, params=params, local_steps=5, local_lr=0.02, rounds=6)
    said = capfd.readouterr().err.splitlines()
    assert "reference value ..." in said
    assert "comparison at 7 step sizes ..." in said


def test_sampled_clients(problem, params):
    answer = la.assess(
        problem, params=params, local_steps=20, local_lr=0.04, rounds=60, participation=0.5
    )
    assert answer.warmup_star < 60
    assert answer.parts["value_noise"] > 0.0
    assert answer.holds
    assert answer.predicted_star == answer.predicted.attrs["warmup_star"]
    assert said(answer)["predicted"].startswith(f"T̂ = {answer.predicted_star} from")


@pytest.mark.parametrize(("step", "words"), [(50.0, "none of R = 8 rounds"),
                                             (1e308, "none of R = 8 rounds"),
                                             (0.5, "every longer warm-up diverges")])  # fmt: skip
def test_divergence_is_said(problem, params, step, words):
    answer = la.assess(problem, params=params, local_steps=5, local_lr=step, rounds=8)
    assert words in str(answer)
    assert not np.isfinite(answer.objective_never)
    assert "not compared" in said(answer)["checked"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("rounds", 0), ("local_steps", 0), ("local_lr", -1), ("time_budget", 0), ("num_starts", 0)],
)
def test_bad_input_is_one_sentence(small_problem, name, value):
    arguments = {"rounds": 3, "local_steps": 2, "local_lr": 0.1} | {name: value}
    with pytest.raises(ValueError, match=f"{name} must be"):
        la.assess(small_problem, **arguments)
