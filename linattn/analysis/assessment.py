"""What `assess` found, its five lines, and its picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from linattn._display import axes_or_new, facts_html
from linattn.analysis.bias_drift import PARTS
from linattn.analysis.checked import Check, has_noise
from linattn.analysis.predicted import objective_at
from linattn.analysis.regret import has_tradeoff, relative_regret
from linattn.analysis.study import Study, plateau

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

LATE = "not compared: the time budget was used up"


@dataclass(frozen=True, eq=False)
class Assessment:
    """Answer of `assess`; print it.

    Attributes
    ----------
    table : xarray.Dataset
        Of `bias_drift`.
    predicted : xarray.Dataset or None
        Of `predict_trade_off`; None if time was over.
    tuned : Study or None
        FedAvg, FedFrozen and FedFrozen with one exact second stage, each at its best step for the
        same number of rounds; None if time was over.
    checks : list of Check
    """

    table: xr.Dataset
    predicted: xr.Dataset | None
    tuned: Study | None
    checks: list[Check]
    _more: Callable[[], dict[str, Any]]

    @property
    def warmup_star(self) -> int | None:
        """Best warm-up length T* at the given step, None if no length is stable."""
        return self.table.attrs["warmup_star"]  # type: ignore[no-any-return]

    @property
    def plateau(self) -> tuple[int, int] | None:
        """Smallest and largest length within 2 % of the stake of T*."""
        if self.warmup_star is None:
            return None
        return plateau(self.table["objective"].values, self.table["warmup"].values)

    @property
    def objective_star(self) -> float:
        """F after R rounds when frozen at T*; NaN if there is none."""
        return float("nan") if self.warmup_star is None else self._objective(self.warmup_star)

    @property
    def objective_never(self) -> float:
        """F after R rounds when never frozen (T = R), +inf where it diverges."""
        return self._objective(self.table.attrs["rounds"])

    @property
    def objective_always(self) -> float:
        """F after R rounds when frozen from the start (T = 0), +inf where it diverges."""
        return self._objective(0)

    @property
    def parts(self) -> dict[str, float]:
        """The exact parts of the remaining loss at T*; they add up to F − reference."""
        if self.warmup_star is None:
            return {}
        names = (*PARTS, "value_noise") if has_noise(self.table) else PARTS
        at = self.table.sel(warmup=self.warmup_star)
        return {name: float(at[name]) for name in names}

    @property
    def reference(self) -> float:
        """P_ref."""
        return float(self.table.attrs["reference"])

    @property
    def certified(self) -> bool:
        """Whether P_ref is globally optimal for every number of heads."""
        return bool(self.table.attrs["certified"])

    @property
    def holds(self) -> bool:
        """Whether a length was stable, something was compared, and nothing of it failed."""
        compared = [check.holds for check in self.checks if check.holds is not None]
        return self.warmup_star is not None and bool(compared) and all(compared)

    @property
    def predicted_star(self) -> int | None:
        """T̂, the predicted best warm-up length."""
        return None if self.predicted is None else self.predicted.attrs["warmup_star"]

    @property
    def predicted_regret(self) -> float:
        """(F(T̂) − F(T*))/(F_never − F(T*)); NaN without a trade-off or a prediction."""
        return self.regret_at(self.predicted_star)

    def regret_at(self, length: int | None) -> float:
        """Relative regret of freezing at a length of the table, NaN where there is no trade-off."""
        if length is None or self.warmup_star is None:
            return float("nan")
        return relative_regret(self.table, objective_at(self.table, length))

    @cached_property
    def details(self) -> dict[str, Any]:
        """Certificate and freeze rules with their regrets, the tables and checks; made when asked.

        ``certificate`` (Dataset), ``certificate_star`` and ``certificate_regret``; ``rules``, name
        to (round, relative regret); ``table``, ``predicted``, ``tuned``, ``checks``, ``parts``.
        """
        found = self._more()
        certificate = found.get("certificate")
        if certificate is not None:
            star = int(np.argmin(certificate["certificate"].values))
            lengths = self.table["warmup"].values
            near = int(lengths[np.argmin(np.abs(lengths - star))])
            found |= {"certificate_star": star, "certificate_regret": self.regret_at(near)}
        found["rules"] = {
            name: (star, self.regret_of(objective)) for name, (star, objective) in
            found["rules"].items()
        }  # fmt: skip
        held = ("table", "predicted", "tuned", "checks", "parts")
        return found | {name: getattr(self, name) for name in held}

    def regret_of(self, objective: float) -> float:
        """Relative regret of an objective."""
        return relative_regret(self.table, objective)

    def __str__(self) -> str:
        return "\n".join(
            f"{name:<14}{words}"
            for name, words in (
                ("best warm-up", self._length_words()),
                ("tuned", self._tuned_words()),
                ("exact stage", self._exact_words()),
                ("predicted", self._predicted_words()),
                ("checked", self._check_words()),
            )
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        lines = (line.split("  ", 1) for line in str(self).splitlines())
        return facts_html("Assessment", ((name, words.strip()) for name, words in lines))

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the excess over P_ref and its parts against the warm-up length.

        Returns
        -------
        matplotlib Axes
        """
        axes, lengths = axes_or_new(axes), self.table["warmup"].values
        excess = self.table["objective"].values - self.reference
        kept = np.where(np.isfinite(excess), excess, np.nan)
        axes.plot(lengths, kept, "k-", label="measured")
        if self.predicted is not None:
            away = self.predicted["objective"].values - self.reference
            axes.plot(self.predicted["warmup"].values, away, "k.", markersize=2, label="predicted")
        for name in PARTS:
            axes.plot(lengths, self.table[name].values, linewidth=1.0, label=name.replace("_", " "))
        if self.warmup_star is not None:
            axes.axvline(self.warmup_star, color="grey", linestyle="--", label="T*")
        shown = kept[kept > 0.0]
        if shown.size:
            axes.set(yscale="log", ylim=(0.1 * shown.min(), 2.0 * shown.max()))
        axes.set(xlabel="warm-up length T (rounds)", ylabel="F − P_ref (loss)")
        axes.legend()
        return axes

    def _objective(self, length: int) -> float:
        return float(self.table["objective"].sel(warmup=length))

    def _excess(self, objective: float) -> str:
        return f"{objective - self.reference:.3g}" if np.isfinite(objective) else "diverged"

    def _length_words(self) -> str:
        rounds = int(self.table.attrs["rounds"])
        if self.warmup_star is None or self.plateau is None:
            return (
                f"none of R = {rounds} rounds: every length diverges at this step; lower local_lr"
            )
        low, high = self.plateau
        after = self.table["stable"].values & np.isfinite(self.table["objective"].values)
        last = int(self.table["warmup"].values[np.flatnonzero(after)[-1]])
        if not has_tradeoff(self.table):
            kind = "no trade-off: freezing earlier saves nothing"
        elif last > self.warmup_star:
            kind = f"plateau {low} to {high}"
        elif last > 0:
            kind = "the longest that does not diverge; lower local_lr"
        else:
            kind = "every longer warm-up diverges; lower local_lr"
        never = self._excess(self.objective_never)
        star = self.predicted_star
        first = "" if star is None else f"predicted {star}, measured "
        return (
            f"{first}T* = {self.warmup_star} of R = {rounds} ({kind}): excess "
            f"{self._excess(self.objective_star)}, never frozen {never}"
        )

    def _tuned_words(self) -> str:
        if self.tuned is None:
            return LATE
        frozen, average = self.tuned.best("fed_frozen"), self.tuned.best("fed_avg")
        return (
            f"{self._excess(float(frozen.objective[0]))} by FedFrozen (η = {frozen.local_lr:.3g}, "
            f"T = {frozen.warmup[0]}), {self._excess(float(average.objective[0]))} by FedAvg "
            f"(η = {average.local_lr:.3g}): freezing {self._saved('fed_frozen')}"
        )

    def _exact_words(self) -> str:
        if self.tuned is None:
            return LATE
        exact = self.tuned.best("fed_frozen_exact")
        return (
            f"{self._excess(float(exact.objective[0]))} by one exact value round after "
            f"T = {exact.warmup[0]} (η = {exact.local_lr:.3g}): {self._saved('fed_frozen_exact')}"
        )

    def _saved(self, method: str) -> str:
        """What a method saves of FedAvg's excess, each at its best step."""
        assert self.tuned is not None
        other, average = (
            float(self.tuned.best(name).objective[0]) - self.reference
            for name in (method, "fed_avg")
        )
        if not np.isfinite(average):
            return "avoids the divergence of FedAvg" if np.isfinite(other) else "diverges, too"
        share = (average - other) / average if average > 0.0 else 0.0
        if abs(share) < 0.005:
            return "saves nothing"
        return f"{'saves' if share > 0.0 else 'costs'} {abs(share):.0%} of FedAvg's excess"

    def _predicted_words(self) -> str:
        if self.predicted is None:
            return LATE.replace("compared", "predicted")
        held = self.predicted.attrs
        if held["warmup_star"] is None:
            return "every length diverges"
        regret = self.predicted_regret
        cost = "" if np.isnan(regret) else f", relative regret {regret:.2g}"
        trust = "" if held["trusted"] else f"; not trusted: {held['reason']}"
        count = held["num_impulses"]
        measured = f"{count} impulse{'s' if count != 1 else ''}"
        return f"T̂ = {held['warmup_star']} from {measured}{cost}{trust}"

    def _check_words(self) -> str:
        compared = [check for check in self.checks if check.holds is not None]
        good = sum(bool(check.holds) for check in compared)
        failed = ", ".join(check.claim for check in compared if not check.holds)
        names = ", ".join(check.claim for check in compared)
        verdict = f"VIOLATED: {failed}" if failed else (names or "nothing was compared")
        known = "certified optimal" if self.certified else "best known"
        apart = len(self.checks) - len(compared)
        rest = f", {apart} not compared" if apart else ""
        return (
            f"{good} of {len(compared)} hold ({verdict}){rest}; P_ref {self.reference:.6g} {known}"
        )
