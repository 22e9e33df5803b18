"""Colours, lines and markers that mean the same method, measure or part in every figure."""

from __future__ import annotations

from typing import NamedTuple


class Look(NamedTuple):
    """How one series is drawn in every figure."""

    label: str
    colour: str
    line: str | tuple[int, tuple[float, ...]] = "-"
    marker: str = ""


# Methods and measures in the colours of Okabe and Ito, parts and rules in the muted ones of Tol:
# both keep apart for red-green and blue-yellow deficiencies; line and marker repeat the difference.
LOOKS: dict[str, Look] = {
    "fed_avg": Look("FedAvg", "#D55E00", "-", "s"),
    "fed_frozen": Look("FedFrozen", "#0072B2", "-", "o"),
    "synchronized": Look("synchronized (centralized)", "#009E73", "--"),
    "identical": Look("identical clients", "#56B4E9", "-."),
    "one_step": Look("E = 1", "#000000", ":"),
    "measured": Look("measured", "#000000", "-"),
    "bound": Look("certificate (upper bound)", "#CC79A7", "--"),
    "lower_bound": Look("lower bound (C15)", "#CC79A7", ":"),
    "reference": Look("best known P", "#7F7F7F", "--"),
    "refit": Look("server-refit V*", "#E69F00", "--", "^"),
    "kernel_bias": Look("kernel bias", "#332288"),
    "value_transient": Look("value drift: transient", "#88CCEE"),
    "value_floor": Look("value drift: frozen floor", "#882255"),
    "value_cross": Look("value drift: cross term", "#999933"),
    "profile_rule": Look("profile rule", "#117733", "-", "v"),
    "observable_rule": Look("observable rule", "#DDCC77", "-", "D"),
    "certified_rule": Look("certified rule", "#AA4499", "-", "P"),
    "oracle": Look("oracle T*", "#000000", "--", "*"),
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
