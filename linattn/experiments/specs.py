"""Specs: what a run is, as frozen, validated data with a digest.

A spec names everything a result depends on and nothing else. Equal specs have equal digests
whether a float was given as ``1`` or ``1.0``; the digest also covers `NUMERICS`, so results of
older numerics are recognised as stale.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgspec
from msgspec import Meta

from linattn.experiments.validation import LARGEST, build, canonical_json, normalised

NUMERICS = 3
"""Version of the numbers: raise it whenever any stored result would change."""

Count = Annotated[int, Meta(ge=1)]
Index = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0, le=LARGEST)]
NonNegative = Annotated[float, Meta(ge=0, le=LARGEST)]
Fraction = Annotated[float, Meta(gt=0, le=1)]
Rule = Literal["profile", "observable", "certified"]


class ProblemSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Arguments of `linattn.synthetic_problem`; the defaults are the base problem."""

    num_clients: Count = 8
    sequences_per_client: Count = 64
    num_tokens: Count = 16
    dim: Count = 6
    num_outputs: Count = 4
    num_heads: Count = 1
    value_heterogeneity: NonNegative = 0.0
    covariate_heterogeneity: NonNegative = 0.0
    kernel_heterogeneity: NonNegative = 0.0
    noise: NonNegative = 0.1
    shared_tokens: bool = False
    readout: Literal["token", "mean", "last"] = "token"
    value_ridge: Positive = 0.05
    kernel_ridge: NonNegative = 0.01


class InitialSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Arguments of `linattn.initial_params`; the default scale gives kernel entries N(0, .09)."""

    num_heads: Count = 1
    kernel: Literal["merged", "factored"] = "merged"
    rank: Count | None = None
    scale: Positive = 0.3 * math.sqrt(6.0)
    value: Literal["zeros", "normal", "minimizer"] = "zeros"

    def __post_init__(self) -> None:
        if self.kernel == "merged" and self.rank is not None:
            raise ValueError(
                f"initial.rank must be null for merged kernels, got {self.rank}; set "
                'initial.kernel="factored" to choose a rank.'
            )


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every run has. `job` is the dotted name of the function that computes a spec."""

    job: ClassVar[str] = ""

    seed: Index = 0

    def cost(self) -> float:
        """Rough cost in gradient steps, for starting the longest runs first."""
        return 1.0


class SyntheticSpec(Spec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every run on a synthetic problem has.

    One run covers all its `local_steps`: they share the problem, the reference value and the
    synchronized trajectory.
    """

    problem: ProblemSpec = ProblemSpec()
    initial: InitialSpec = InitialSpec()
    rounds: Count = 200
    local_steps: tuple[Count, ...] = (1, 20)
    local_lr: Positive = 0.05

    def __post_init__(self) -> None:
        _increasing("local_steps", self.local_steps)

    def cost(self) -> float:
        """Gradient steps of one trajectory per number of local steps, times the data."""
        data = self.problem.num_clients * self.problem.sequences_per_client
        return float(self.rounds * sum(self.local_steps) * data * self.problem.dim**2)


class BiasDriftSpec(
    SyntheticSpec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind",
    tag="bias_drift",
):  # fmt: skip
    """The exact decomposition C9 over warm-up lengths, with all controls.

    `warmup_lengths` may list the lengths; left empty, there are `num_lengths` from 0 to `rounds`.
    """

    job: ClassVar[str] = "linattn.experiments.jobs.bias_drift:run"

    frozen_lr: Positive | Literal["safe"] | None = None
    num_lengths: Annotated[int, Meta(ge=2)] = 12
    warmup_lengths: tuple[Index, ...] = ()
    num_starts: Count = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        _within_rounds(self.warmup_lengths, self.rounds)

    def lengths(self) -> tuple[int, ...]:
        """The warm-up lengths of this run."""
        return self.warmup_lengths or warmup_grid(self.rounds, self.num_lengths)


class FrozenStageSpec(
    SyntheticSpec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind",
    tag="frozen_stage",
):  # fmt: skip
    """Frozen rounds at one kernel against the closed forms C7 and C8.

    The kernel is the one after `warmup_rounds` rounds of `warmup_local_steps` local steps;
    `rounds` frozen rounds are simulated and recorded for every entry of `local_steps`, and
    `settle_rounds` rounds from V* measure the bias.
    """

    job: ClassVar[str] = "linattn.experiments.jobs.frozen_stage:run"

    rounds: Count = 40
    local_steps: tuple[Count, ...] = (1, 2, 5, 10, 20, 50, 100)
    warmup_rounds: Index = 10
    warmup_local_steps: Count = 10
    settle_rounds: Count = 200


class CertificateSpec(
    SyntheticSpec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind",
    tag="certificate",
):  # fmt: skip
    """The ledger C4 (or C4f) and the additive identity along a warm-up."""

    job: ClassVar[str] = "linattn.experiments.jobs.certificate:run"

    num_starts: Count = 20


class FreezeRuleSpec(
    SyntheticSpec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind",
    tag="freeze_rule",
):  # fmt: skip
    """Freezing rules C13 against the best warm-up length and against never freezing."""

    job: ClassVar[str] = "linattn.experiments.jobs.freeze_rule:run"

    frozen_lr: Positive | Literal["safe"] | None = None
    rules: tuple[Rule, ...] = ("profile", "observable", "certified")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.rules)) != len(self.rules) or not self.rules:
            raise ValueError(f"rules must be distinct, at least one, got {list(self.rules)}.")


class RealDataSpec(
    Spec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind",
    tag="real_data",
):  # fmt: skip
    """FedAvg and FedFrozen over warm-up lengths on a shipped data set, with test quantities.

    The step size is `step_factor` · `linattn.safe_step` at the start for all methods; whenever one
    run diverges, the factor is halved for all and everything is repeated. `reference` is how P_ref
    is found: "multi_start" is `linattn.reference_value` with `num_starts` starts, "descent" is one
    L-BFGS descent on P from the start, of at most `reference_iterations` iterations.
    """

    job: ClassVar[str] = "linattn.experiments.jobs.real_data:run"

    data: Literal["digits", "watch"] = "digits"
    split: Literal["sheets", "dirichlet", "iid", "sides", "subjects"] = "dirichlet"
    alpha: Positive | None = None
    initial: InitialSpec = InitialSpec(scale=1.0)
    value_ridge: Positive = 1e-4
    kernel_ridge: Positive = 1e-4
    rounds: Count = 200
    local_steps: tuple[Count, ...] = (1, 20)
    step_factor: Positive = 2.0
    frozen_lr: Positive | Literal["safe"] | None = None
    num_lengths: Annotated[int, Meta(ge=2)] = 8
    warmup_lengths: tuple[Index, ...] = ()
    reference: Literal["descent", "multi_start"] = "descent"
    reference_iterations: Count = 200
    num_starts: Count = 2

    def __post_init__(self) -> None:
        _increasing("local_steps", self.local_steps)
        _within_rounds(self.warmup_lengths, self.rounds)
        allowed = SPLITS[self.data]
        if self.split not in allowed:
            raise ValueError(
                f"split must be one of {', '.join(allowed)} for data {self.data!r}, "
                f"got {self.split!r}."
            )
        if (self.alpha is not None) != (self.split == "dirichlet"):
            raise ValueError(
                f"alpha must be a number > 0 for the dirichlet split and null for all others, got "
                f"{self.alpha} for {self.split!r}."
            )

    def lengths(self) -> tuple[int, ...]:
        """The warm-up lengths of this run; `rounds`, which is FedAvg, is always there."""
        given = self.warmup_lengths or warmup_grid(self.rounds, self.num_lengths)
        return tuple(sorted({*given, self.rounds}))

    def cost(self) -> float:
        """Gradient steps of one warm-up per number of local steps, times heads and data."""
        data = {"digits": 1437 * 16**2, "watch": 2300 * 7**2}[self.data]
        return float(self.rounds * sum(self.local_steps) * self.initial.num_heads * data)


SPLITS = {"digits": ("sheets", "dirichlet", "iid"), "watch": ("sides", "subjects")}
"""Splits of each data set, as `digits_split` and `watch_split` know them."""


def warmup_grid(rounds: int, count: int) -> tuple[int, ...]:
    """Return at most `count` warm-up lengths: 0, 1, 2, 3, 5, 8, then geometric up to `rounds`.

    Examples
    --------
    >>> warmup_grid(200, 12)
    (0, 1, 2, 3, 5, 8, 14, 23, 40, 68, 117, 200)
    """
    head = [t for t in (0, 1, 2, 3, 5, 8)[: count - 1] if t < rounds]
    tail = count - len(head)
    first = max(head[-1], 1)
    ratio = (rounds / first) ** (1.0 / tail)
    grown = [round(first * ratio**k) for k in range(1, tail)]
    return tuple(sorted({*head, *grown, rounds}))


AnySpec = TypeVar("AnySpec", bound=Spec)
KINDS: dict[str, type[Spec]] = {}
"""Run kinds by tag. `register` adds to it; nothing else does."""


def register(cls: type[AnySpec]) -> type[AnySpec]:
    """Make a spec class known by its tag, so that stored results of it can be read.

    Raises
    ------
    ValueError
        If the class has no tag or no job, or the tag belongs to another class.
    """
    tag = cls.__struct_config__.tag
    if not isinstance(tag, str) or ":" not in cls.job:
        raise ValueError(f"{cls.__name__} needs a tag and a job 'module:function'.")
    known = KINDS.setdefault(tag, cls)
    if known.__qualname__ != cls.__qualname__:
        raise ValueError(f"kind {tag!r} is {known.__name__} already, got {cls.__name__}.")
    return cls


for _cls in (BiasDriftSpec, FrozenStageSpec, CertificateSpec, FreezeRuleSpec, RealDataSpec):
    register(_cls)


def kind_of(spec: Spec) -> str:
    """Return the tag of a spec."""
    return str(type(spec).__struct_config__.tag)


def spec_from(values: Mapping[str, Any]) -> Spec:
    """Return the spec that a mapping with the key ``kind`` describes.

    Raises
    ------
    ValueError
        If the kind or a key is unknown, or a value is out of range.
    """
    kind = values.get("kind")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
    return build(KINDS[kind], values)


def spec_json(spec: Spec) -> str:
    """Return the canonical JSON of the normalised spec."""
    return canonical_json(msgspec.to_builtins(normalised(spec)))


def digest(spec: Spec, *, numerics: int = NUMERICS) -> str:
    """Return the SHA-256 over the spec and the version of the numbers, in hexadecimal.

    Examples
    --------
    >>> digest(BiasDriftSpec(local_lr=1)) == digest(BiasDriftSpec(local_lr=1.0))
    True
    """
    text = f'{{"numerics":{numerics},"spec":{spec_json(spec)}}}'
    return hashlib.sha256(text.encode()).hexdigest()


def _increasing(name: str, values: tuple[int, ...]) -> None:
    if not values or list(values) != sorted(set(values)):
        raise ValueError(f"{name} must be strictly increasing, at least one, got {list(values)}.")


def _within_rounds(lengths: tuple[int, ...], rounds: int) -> None:
    """Refuse explicit warm-up lengths that are not increasing or exceed the rounds."""
    if not lengths:
        return
    _increasing("warmup_lengths", lengths)
    if lengths[-1] > rounds:
        raise ValueError(f"warmup_lengths must be at most rounds = {rounds}, got {lengths[-1]}.")
