"""Colours, lines and markers that mean the same method, measure or part in every figure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

from linattn.federated.methods.table import METHODS

INK = "ink"
"""The colour of text in the style that is used."""


class Look(NamedTuple):
    """How one series is drawn in every figure.

    Attributes
    ----------
    label : str
        What the legend says; a label that begins with ``_`` is not in the legend.
    colour : str
        Anything that matplotlib takes, or `INK`.
    line, marker : str
        As in matplotlib; empty for none.
    weight : float
        Of lines and markers, in units of the style's.
    """

    label: str
    colour: str
    line: str = "-"
    marker: str = ""
    weight: float = 1.0


# Methods and measures in the colours of Okabe and Ito, parts and rules in the muted ones of Tol:
# both keep apart for red-green and blue-yellow deficiencies; line and marker repeat the difference.
LOOKS: dict[str, Look] = {
    "fed_avg": Look("FedAvg", "#D55E00", "-", "s"),
    "fed_frozen": Look("FedFrozen", "#0072B2", "-", "o"),
    "synchronized": Look("synchronized (centralized)", "#009E73", "--"),
    "identical": Look("identical clients", "#56B4E9", "-."),
    "one_step": Look("E = 1", INK, ":"),
    "measured": Look("measured", INK, "-"),
    "bound": Look("certificate (upper bound)", "#CC79A7", "--"),
    "lower_bound": Look("lower bound (C15)", "#CC79A7", ":"),
    "reference": Look("best known P", "#7F7F7F", "--"),
    "refit": Look("server-refit V*", "#E69F00", "--", "^"),
    "kernel_bias": Look("kernel bias", "#332288", "--"),
    "value_drift": Look("value drift", "#882255", "-."),
    "value_transient": Look("value drift: transient", "#88CCEE", "--"),
    "value_floor": Look("value drift: frozen floor", "#882255", "-."),
    "value_cross": Look("value drift: cross term", "#999933", ":"),
    "profile_rule": Look("profile rule", "#117733", "-", "v"),
    "observable_rule": Look("observable rule", "#DDCC77", "--", "D"),
    "certified_rule": Look("certified rule", "#AA4499", "-.", "P"),
    "oracle": Look("best length T*", INK, "", "*", 1.6),
    "predicted": Look("predicted (C24)", "#009E73", ":", "x"),
    "fed_avg_momentum": Look("FedAvg, server momentum", "#E69F00", "--", "s"),
    "fed_prox": Look("FedProx", "#CC6677", "-", "<"),
    "fed_nova": Look("FedNova", "#DDCC77", "-.", "s"),
    "fed_adam": Look("FedAdam", "#661100", "-", "d"),
    "fed_yogi": Look("FedYogi", "#661100", "--", "d"),
    "scaffold": Look("SCAFFOLD", "#009E73", "-", "D"),
    "moon": Look("MOON", "#AA4499", "-", ">"),
    "frozen_scaffold": Look("FedFrozen, SCAFFOLD", "#44AA99", "--", "D"),
    "frozen_one_shot": Look("FedFrozen, one-shot", "#332288", "-.", "*"),
    "freeze_value": Look("value frozen instead", "#88CCEE", "--", "o"),
    "freeze_start": Look("frozen from the start", "#56B4E9", ":", "o"),
    "fed_part": Look("FedPart", "#882255", "-", "^"),
    "selective": Look("selective", "#999933", "-", "v"),
    "fed_tp": Look("FedTP, linear", "#117733", "-", "P"),
    "fed_tp_mlp": Look("FedTP, MLP", "#6BAF45", "--", "P"),
    "local_attention": Look("local attention", "#7F7F7F", "-", "X"),
    "fine_tuned": Look("FedAvg, fine-tuned", "#555555", ":", "X"),
    "fed_sq": Look("FedSQ", "#A6611A", "-", "h"),
}
# Terms of a descent step, in colours of Tol that no method has.
TERMS = {
    "paid": Look("paid", "#332288"),
    "tracking": Look("tracking", "#CC6677", "--"),
    "drift": Look("drift", "#661100", "-."),
    "cross": Look("cross term", "#999933", ":"),
    "step": Look("step", "#44AA99", "-", "", 0.6),
    "resolve": Look("re-solve", "#6699CC", ":"),
}
SHADES = ("#440154", "#3B528B", "#21918C", "#5EC962", "#B8A800", "#7F7F7F")
"""Viridis, darkened at its end: values in order differ in grey as well."""
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SPARE = [
    (colour, line, marker)
    for line, (marker, colour) in product(
        LINES, zip(MARKERS, ("#117733", "#AA4499", "#332288", "#A6611A", "#661100", "#44AA99",
                             "#DDCC77", "#CC6677"), strict=True))
]  # fmt: skip


def looks_of(names: Iterable[str]) -> dict[str, Look]:
    """Return a look for every name; those that are not in `LOOKS` get spare ones, in their order.

    A method of the table that has no look of its own keeps its label.

    Examples
    --------
    >>> found = looks_of(["fed_avg", "mine", "yours"])
    >>> found["fed_avg"].label, found["mine"].label, found["mine"][1:4] == found["yours"][1:4]
    ('FedAvg', 'mine', False)
    """
    listed = list(names)
    unknown = [name for name in dict.fromkeys(listed) if name not in LOOKS]
    labels = {name: METHODS[name].label for name in unknown if name in METHODS}
    spare = {
        name: Look(labels.get(name, name.replace("_", " ")), *SPARE[k % len(SPARE)])
        for k, name in enumerate(unknown)
    }
    return {name: LOOKS.get(name) or spare[name] for name in listed}


def shaded(labels: Iterable[str], marker: bool = False) -> list[Look]:
    """Return looks for values in order, from dark to light, each with a line of its own.

    Examples
    --------
    >>> [look.line for look in shaded(["s = 0", "s = 0.1"])]
    ['-', '--']
    """
    listed = list(labels)
    last = max(len(listed) - 1, 1)
    return [
        Look(
            label,
            SHADES[round(k * min(last, len(SHADES) - 2) / last) % len(SHADES)],
            LINES[k % len(LINES)],
            MARKERS[k % len(MARKERS)] if marker else "",
        )
        for k, label in enumerate(listed)
    ]
