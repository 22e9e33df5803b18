"""Sampled clients: the mean of many runs beside its prediction, and everybody's run (C19, C20)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn._typing import Array
from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Page, log
from linattn.report.groups import Group
from linattn.report.looks import INK, Look
from linattn.report.regimes import TIME, time, with_tradeoff, worlds
from linattn.report.words import in_words

NAME = "response_sampling"
SIMULATION = "sampled_response"
MEASURED = Look("mean of sampled runs", INK, "-")
PREDICTED = Look("its prediction", "#D55E00", "--", "o", 0.8)
EVERYBODY = Look("everybody, predicted", "#0072B2", ":")
CAPTION = (
    "FedAvg with a share of the clients, η = {0:g}, E = {1}, participation {2:g}, mean of {3} runs "
    "with two standard errors, its prediction as a Gaussian without a sampled run, and the "
    "predicted run of everybody. Left: loss after both stages; right: the kernel's part, which one "
    "exact value round would reach."
)


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    part = _part(results)
    fields = part.fields
    told = (fields["local_lr"], fields["local_steps"], fields["participation"], fields["num_runs"])
    page = Page(NAME, CAPTION.format(*told), summary(results).splitlines(), columns=2, height=2.6)
    for name, title, other in (
        ("objective", "after both stages", "everybody"),
        ("profile", "kernel alone", "everybody_profile"),
    ):
        panel = page.panel(title, TIME, log("above P_ref (loss)"))
        mean, error = (_first(part, key) for key in (name, f"{name}_error"))
        ends = (mean - 2.0 * error, mean + 2.0 * error)
        panel.add("line", MEASURED, time(part), mean, ends=ends, band="two standard errors")
        panel.add("line", PREDICTED, time(part), _first(part, f"predicted_{name}"))
        panel.add("line", EVERYBODY, time(part), _first(part, other))
        panel.best(time(part), mean)
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return how far predictions are off and how many are trusted."""
    lines = []
    for words, prefix in (("loss after both stages", ""), ("kernel alone", "profile_")):
        error, regret = (
            np.array([float(result.dataset[name]) for result in results])
            for name in (f"{prefix}worst_error", f"{prefix}regret")
        )
        held = regret[~np.isnan(regret)]
        cost = with_tradeoff(
            held,
            f"regret of the predicted length at most .15 in {int((held <= 0.15).sum())} of "
            f"{held.size} settings",
        )
        lines.append(f"{words}: worst error over lengths {in_words(error, percent=True)}, {cost}")
    trusted = [bool(result.dataset["trusted"]) for result in results]
    return "\n".join([*lines, f"{sum(trusted)} of {len(trusted)} predictions trust themselves"])


def _part(results: Sequence[Result]) -> Group:
    """The first world's largest drift, first seed."""
    part = max(
        worlds(results)[0].split("local_lr", "local_steps"), key=lambda p: p.fields["local_steps"]
    )
    first = part.results[0]
    return part.only(lambda result: result is first)


def _first(part: Group, name: str) -> Array:
    values = part.values(name)[0]
    reference = 0.0 if name.endswith("_error") else float(part.values("reference")[0])
    return np.asarray(values - reference)
