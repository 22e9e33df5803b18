"""Records in a notebook: HTML that parses and says the numbers, axes only when asked for."""

from html.parser import HTMLParser

import matplotlib as mpl
import matplotlib.figure
import matplotlib.pyplot as plt
import numpy as np
import pytest
from processes import printed

import linattn as la
from linattn._display import facts_html, table_html
from linattn.analysis.study import study_in_memory

RUN = {"rounds": 6, "local_steps": 4, "local_lr": 0.02}
VOID = ("br", "hr", "img")


class Cells(HTMLParser):
    """The texts of all cells; unbalanced tags fail."""

    def __init__(self, html):
        super().__init__()
        self.open, self.texts = [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert tag not in VOID
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def shown(small_problem):
    """One of every record that shows itself."""
    start = la.initial_params(small_problem, value="normal", seed=1)
    return {
        "problem": small_problem,
        "result": la.run(la.fed_frozen(warmup_rounds=3), small_problem, start, **RUN),
        "assessment": la.assess(small_problem, **RUN),
        "verdict": la.check("C8", small_problem),
        "reference": la.reference_value(small_problem, like=start, num_starts=2),
        "stage": la.frozen_stage(small_problem, start, local_steps=4, local_lr=0.02),
        "moments": la.frozen_moments(
            small_problem, start, local_steps=4, local_lr=0.02, participation=0.5
        ),
        "predicted": la.predict_run(small_problem, start, **RUN),
        "response": la.drift_response(small_problem, start, 4.0),
        "study": study_in_memory(
            small_problem, start, methods=("fed_avg", "fed_frozen"), local_lrs=[0.01, 0.02],
            local_steps=4, rounds=4, warmup_lengths=[0, 2],
        ),
    }  # fmt: skip


@pytest.fixture(autouse=True)
def _closed():
    mpl.use("Agg")
    yield
    plt.close("all")


WANTED = {
    "problem": lambda p: [str(p.num_clients), str(p.num_sequences), p.readout],
    "result": lambda r: ["completed", "3", f"{r.columns['objective'][-1]:.6g}"],
    "assessment": lambda a: ["best warm-up", "tuned", a._check_words()],
    "verdict": lambda v: [f"{v.measured:.6g}", f"{v.bound:.6g}", v.conditions[0].name],
    "reference": lambda r: [f"{r.value:.6g}", f"{r.lower_bound:.6g}"],
    "stage": lambda s: [f"{s.rate:.6g}", f"{s.floor:.6g}"],
    "moments": lambda m: [f"{m.second_moment_rate:.6g}", f"{m.floor_parts.noise:.6g}"],
    "predicted": lambda p: ["completed", str(p.num_impulses), f"{p.amplification:.6g}"],
    "response": lambda r: ["4", str(len(r.time)), f"{r.profile[0]:.6g}", f"{r.profile[-1]:.6g}"],
    "study": lambda s: ["fed_avg", "fed_frozen", f"{np.median(s.best('fed_avg').objective):.6g}"],
}


@pytest.mark.parametrize("name", WANTED)
def test_html_says_the_numbers(shown, name):
    texts = Cells(shown[name]._repr_html_()).texts
    assert set(WANTED[name](shown[name])) <= set(texts)


def test_what_is_written_into_a_table_is_escaped():
    html = table_html(["<b>"], [["a & b"]], caption="<script>")
    assert Cells(html).texts == ["<script>", "<b>", "a & b"]
    assert Cells(facts_html("", [("kept", 0), ("left out", None)])).texts == ["kept", "0"]


def curve(axes, label):
    (line,) = [line for line in axes.get_lines() if line.get_label() == label]
    return line.get_xdata(), line.get_ydata()


def test_a_run_draws_its_history(shown):
    axes = shown["result"].plot()
    rounds, objective = curve(axes, "objective")
    np.testing.assert_array_equal(rounds, np.arange(7))
    np.testing.assert_array_equal(objective, shown["result"].history["objective"])
    assert list(curve(axes, "kernel frozen")[0]) == [3, 3]


def test_an_assessment_draws_its_table(shown):
    answer = shown["assessment"]
    axes = answer.plot()
    lengths, above = curve(axes, "measured")
    best = lengths[np.argmin(above)]
    assert best == answer.warmup_star
    names = ("kernel bias", "value transient", "value floor", "value cross")
    parts = sum(curve(axes, label)[1] for label in names)
    np.testing.assert_allclose(parts, above, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(curve(axes, "predicted")[0], answer.predicted["warmup"])


def test_a_frozen_stage_draws_what_runs_would_cost(shown, small_problem):
    axes = shown["stage"].plot(rounds=5)
    _, gaps = curve(axes, "F(B, V_t) − P(B)")
    start = la.initial_params(small_problem, value="normal", seed=1)
    run = la.run(la.fed_frozen(warmup_rounds=0), small_problem, start, rounds=5, local_steps=4,
                 local_lr=0.02)  # fmt: skip
    np.testing.assert_allclose(gaps, run.history["gap"], rtol=1e-9)


def test_moments_draw_what_sampling_leaves_in_expectation(shown):
    _, gaps = curve(shown["moments"].plot(rounds=4), "E F(B, V_t) − P(B)")
    assert list(gaps) == [shown["moments"].expected_gap(t) for t in range(5)]


def test_a_prediction_draws_its_impulses(shown):
    (line,) = shown["predicted"].plot().get_lines()
    np.testing.assert_array_equal(line.get_xdata(), shown["predicted"].impulse_rounds)
    sizes = np.linalg.norm(shown["predicted"].impulses, axis=1)
    np.testing.assert_array_equal(line.get_ydata(), sizes)


def test_a_response_draws_the_loss_over_the_time_of_freezing(shown):
    axes = shown["response"].plot(drift_numbers=[0.0, 0.1])
    for s in (0.0, 0.1):
        times, loss = curve(axes, f"s = {s:g}")
        np.testing.assert_array_equal(times, shown["response"].time)
        np.testing.assert_array_equal(loss, shown["response"].objective(s))
    stars = [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() == "*"]
    np.testing.assert_array_equal(stars, shown["response"].best_time([0.0, 0.1]))


DRAWN = [name for name in WANTED if name not in ("problem", "verdict", "reference")]


@pytest.mark.parametrize("name", DRAWN)
def test_axes_of_ones_own_are_used(shown, name):
    axes = matplotlib.figure.Figure().subplots()
    assert shown[name].plot(axes) is axes
    assert axes.get_lines()
    assert not plt.get_fignums()


def test_showing_a_run_does_not_import_matplotlib():
    code = """
import sys, linattn as la
problem = la.synthetic_problem(num_clients=2, sequences_per_client=2, num_tokens=3, dim=2,
    num_outputs=1, value_ridge=0.1, kernel_ridge=0.1)
html = problem._repr_html_()
assert "<table" in html and not {"matplotlib", "xarray", "pandas"} & set(sys.modules)
"""
    printed("-c", code)
