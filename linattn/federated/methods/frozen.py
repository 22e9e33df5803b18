"""FedFrozen: a warm-up on everything, then one part stays frozen."""

from __future__ import annotations

from linattn._checks import one_of, positive_int, real
from linattn.federated.freeze import FreezeRule
from linattn.federated.method import Method
from linattn.federated.methods.averaging import fed_avg
from linattn.federated.methods.exact import exact_round
from linattn.federated.methods.scaffold import scaffold
from linattn.federated.methods.two_stage import TwoStages
from linattn.objectives.steps import check_frozen_lr

STAGES = {"fed_avg": fed_avg, "scaffold": scaffold, "one_shot": exact_round}
"""The second stages that have a name."""
PARTS = ("kernel", "value")


def fed_frozen(
    *,
    warmup_rounds: int | FreezeRule,
    frozen: str | Method = "fed_avg",
    freeze: str = "kernel",
    frozen_lr: float | str | None = None,
    frozen_participation: float | None = None,
) -> Method:
    """Return FedFrozen: FedAvg on everything for a warm-up, then the kernel stays frozen.

    Parameters
    ----------
    warmup_rounds : int or FreezeRule
        T: rounds 0..T−1 train all blocks. 0 never trains the kernel; T ≥ rounds is FedAvg. A
        `freeze_rule`, or a `FreezeRule` of one's own, decides while running (C13).
    frozen : {"fed_avg", "scaffold", "one_shot"} or Method
        The second stage: averaging; control variates (option 2, from zero), whose fixed point is
        V*; one exact round, in which all clients, whoever took part in the warm-up, send A_i and
        C_i and the server solves for V*, after which nothing is left to train; or any method, of
        which everything but the blocks that stay is kept. Its memories begin with the stage.
    freeze : {"kernel", "value"}
        What stays; freezing the value blocks (and the readout) is a control.
    frozen_lr : None, float or "safe"
        Step size of the frozen stage: None keeps local_lr; "safe" is
        min(local_lr, 1/max_i λ_max(A_i(B_T))). Every client would send its λ_max once, which counts
        leave out.
    frozen_participation : float, optional
        Participation of the second stage, in (0, 1]; default that of the run.

    Raises
    ------
    ValueError
        If warmup_rounds is negative, frozen_lr is not positive or frozen_participation is not in
        (0, 1]; if "one_shot", "safe" or a freeze rule is to freeze the value; if "one_shot" meets a
        frozen_lr or frozen_participation; if the method of the second stage exchanges the oracle.
    TypeError
        When run on a deep problem with a freeze rule, ``frozen_lr="safe"`` or "one_shot": all need
        one layer.

    Notes
    -----
    Source: the two stages of FedFrozen (arXiv 2605.06446); Warm-up; Frozen stage. The second
    stages other than averaging are ours. Deep models: kernel blocks are all query and key blocks.
    Cost: in the frozen stage the value blocks only, up and down, and their gradients; "one_shot"
    sends A_i and C_i once.
    """
    second = _second_stage(frozen)
    exact = frozen == "one_shot"
    rule = warmup_rounds if isinstance(warmup_rounds, FreezeRule) else None
    length = 0 if rule else positive_int("warmup_rounds", warmup_rounds, minimum=0)
    check_frozen_lr(frozen_lr)
    if exact and frozen_lr is not None:
        raise ValueError(
            "frozen_lr must be left out for frozen='one_shot', which takes no step, got "
            f"{frozen_lr!r}."
        )
    share = None if frozen_participation is None else _share(frozen_participation, exact)
    if one_of("freeze", freeze, PARTS) == "value":
        _check_quadratic(rule is not None, exact, frozen_lr == "safe")
    parts = [str(length) if rule is None else rule.name]
    parts += [] if frozen == "fed_avg" else [second.name]
    parts += [] if freeze == "kernel" else ["value frozen"]
    parts += [] if share is None else [f"frozen_participation {share:g}"]
    stages = TwoStages(length, rule, second, freeze, frozen_lr, share)
    return stages.method(f"fed_frozen({', '.join(parts)})")


def _second_stage(frozen: str | Method) -> Method:
    if not isinstance(frozen, Method):
        return STAGES[one_of("frozen", frozen, STAGES)]()
    if frozen.oracle is not None:
        raise ValueError(
            f"frozen must see the problem as the warm-up does, but {frozen.name} exchanges the "
            "oracle."
        )
    return frozen


def _share(participation: float, exact: bool) -> float:
    share = real("frozen_participation", participation, above=0.0, maximum=1.0)
    if exact:
        raise ValueError(
            "frozen_participation must be left out for frozen='one_shot', which asks every client "
            f"once, got {share:g}."
        )
    return share


def _check_quadratic(rule: bool, exact: bool, safe: bool) -> None:
    """Refuse what is about the value block when that is what stays."""
    asked = {
        "warmup_rounds=freeze_rule(...)": rule,
        "frozen='one_shot'": exact,
        "frozen_lr='safe'": safe,
    }
    for name, wanted in asked.items():
        if wanted:
            raise ValueError(f"{name} is about a frozen kernel, got freeze='value'.")
