"""Measure the toolkit against its twin and its peers: ``python benchmarks/run.py``.

Needs the ``[bench]`` extra (JAX and PyTorch). Every part runs in a process of its own, with one
thread and then with two: BLAS, OpenMP, XLA and PyTorch threads are set in its environment and the
process is bound to as many cores. Within a process all candidates take turns; medians and quartiles
over at least nine repeats are reported, after all results agreed to 1e-10.

Writes ``rounds.csv``, ``calls.csv``, ``results.json``, ``provenance.json`` and the drawings
``cost.png`` and ``calls.png`` into the output folder (``docs/record/benchmarks`` keeps a run).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from linattn.cli import table as aligned
from linattn.experiments.files import csv_bytes
from linattn.experiments.provenance import THREAD_VARIABLES, provenance

HERE = Path(__file__).parent
PARTS = ("rounds", "calls", "sweeps", "scale")
GROUPS = ("jax statistics", "jax tokens", "jax hoisted", "torch")


def environment(threads: int) -> dict[str, str]:
    """Environment in which every library uses so many threads."""
    # Passive: idle threads of one candidate must not spin on a core while another is timed.
    fixed = {"JAX_PLATFORMS": "cpu", "OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4"}
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **fixed}


def measure(part: str, output: Path, threads: int, *arguments: str) -> dict[str, Any]:
    """Run one part in its own process, bound to `threads` cores, and read what it found."""
    target = output / f"{part}-{threads}.json"
    cores = set(list(os.sched_getaffinity(0))[:threads])
    command = [sys.executable, str(HERE / f"{part}.py"), "--json", str(target), *arguments]
    print(f"{part}, {threads} thread{'s' * (threads > 1)}", flush=True)
    subprocess.run(
        command,
        env=environment(1 if part == "sweeps" else threads),
        check=True,
        cwd=HERE.parent,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return json.loads(target.read_text(encoding="utf-8"))


def quartiles(values: Any) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, mid, high = np.quantile(np.asarray(values), (0.25, 0.5, 0.75))
    return float(low), float(mid), float(high)


def best(seconds: dict[str, list[float]], prefix: str) -> str | None:
    """Name of the fastest candidate of a group by median."""
    group = {name: np.median(v) for name, v in seconds.items() if name.startswith(prefix)}
    return min(group, key=group.__getitem__) if group else None


def round_rows(found: dict[str, Any], threads: int) -> list[dict[str, Any]]:
    """One row per case and candidate: milliseconds, ratio to this library, share of dgemm."""
    rows = []
    for entry in found["rounds"]:
        seconds = entry["seconds"]
        ours = np.asarray(seconds["linattn"])
        chosen = ["linattn", "numpy"]
        chosen += [n for p in GROUPS if (n := best(seconds, p))]
        for name in chosen:
            low, mid, high = quartiles(1e3 * np.asarray(seconds[name]))
            rows.append(
                {
                    "threads": threads,
                    "case": entry["case"],
                    "candidate": name,
                    "ms": mid,
                    "ms_low": low,
                    "ms_high": high,
                    "ratio": float(np.median(np.asarray(seconds[name]) / ours)),
                    "dgemm_share": quartiles(entry["share"])[1] if name == "linattn" else "",
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    lines = [("threads", "case", "candidate", "ms (quartiles)", "x linattn", "of dgemm")]
    for row in rows:
        share = f"{100 * row['dgemm_share']:.0f} %" if row["dgemm_share"] != "" else ""
        spread = f"{row['ms']:.3g} ({row['ms_low']:.3g} to {row['ms_high']:.3g})"
        case = (row["threads"], row["case"], row["candidate"])
        lines.append((*case, spread, f"{row['ratio']:.3g}", share))
    return aligned(lines)


def sentences(found: dict[str, Any]) -> list[str]:
    """What the other parts found, one sentence each."""
    out = []
    single = found.get("rounds-1", {})
    lengths = {row["tokens"]: np.median(row["seconds"]) for row in single.get("length", [])}
    if lengths:
        spread = max(lengths.values()) / min(lengths.values()) - 1
        out.append(f"cost from n = {min(lengths)} to {max(lengths)}: within {100 * spread:.1f} %")
    for steps in (10, 50):
        part = [r for r in single.get("warmups", []) if r["local_steps"] == steps]
        rows = {r["what"]: np.median(r["seconds"]) for r in part}
        if rows:
            bare = rows["20 lengths"] / rows["one run"]
            full = rows["20 lengths"] / rows["one run, metrics"]
            out.append(
                f"20 warm-up lengths, E = {steps}: {bare:.2f} x one bare run, "
                f"{full:.2f} x one run with its history"
            )
    sweep = found.get("sweeps-2")
    if sweep:
        one, two, plain = sweep["workers_1"], sweep["workers_2"], sweep["plain"]
        ratio = plain["extrapolated"] / two["seconds"]
        out += [
            f"bias_drift, {sweep['preset']} preset ({sweep['specs']} specs): "
            f"{two['seconds']:.0f} s with 2 workers, of which start-up {two['startup']:.1f} s",
            f"plain PyTorch script, {plain['sampled']} of {plain['runs']} runs sampled: "
            f"{plain['extrapolated'] / 3600:.1f} h, {ratio:.0f} x",
            f"2 workers against 1: {one['work'] / two['work']:.2f} x on {one['work']:.0f} s of "
            f"work; two dgemm processes reach {sweep['dgemm_scaling']:.2f} x one",
        ]
    for row in found.get("calls-2", {}).get("rows", []):
        if row["call"] != row["base"]:
            spread = f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
            out.append(f"{row['case']}, {row['part']}: {row['call']} {spread} x {row['base']}")
    scale = found.get("scale-1")
    if scale:
        out.append(
            f"{scale['clients']} clients from an iterator: built in {scale['build_seconds']:.0f} "
            f"s, 10 rounds with 100 participants in {scale['run_seconds']:.1f} s, "
            f"peak {scale['peak_mib'] / 1024:.2f} GiB"
        )
    return out


def draw_costs(found: dict[str, Any], path: Path) -> None:
    """Cost of a round against n, S, d, E and clients, and of the sweep against workers."""
    single = found["rounds-1"]
    rows = [
        {"field": "tokens", "value": r["tokens"], "seconds": r["seconds"]} for r in single["length"]
    ]
    rows += single["sizes"]
    panels = {
        "tokens": "sequence length n",
        "sequences": "sequences per client S",
        "dim": "channels d",
        "local_steps": "local steps E",
        "clients": "clients",
    }
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.subplots(2, 3)
    for axis, (field, name) in zip(axes.flat, panels.items(), strict=False):
        part = sorted((r for r in rows if r["field"] == field), key=lambda r: r["value"])
        spread = np.array([quartiles(1e3 * np.asarray(r["seconds"])) for r in part])
        x = [r["value"] for r in part]
        axis.fill_between(x, spread[:, 0], spread[:, 2], alpha=0.25, color="#0072B2")
        axis.loglog(x, spread[:, 1], "o-", color="#0072B2")
        axis.set(xlabel=name, ylabel="one round (ms)", ylim=(0.5 * spread.min(), 2 * spread.max()))
        axis.set_xticks(x, [str(v) for v in x], minor=False)
        axis.minorticks_off()
    last = axes.flat[-1]
    sweep = found.get("sweeps-2")
    if sweep:
        last.bar(
            ["1", "2"], [sweep["workers_1"]["work"], sweep["workers_2"]["work"]], color="#0072B2"
        )
        last.set(xlabel="workers", ylabel=f"bias_drift, {sweep['preset']} (s)")
    else:
        last.set_axis_off()
    figure.suptitle("Cost of a round on one thread: median and quartiles", fontsize=10)
    figure.savefig(path, dpi=150)


def call_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per call: milliseconds, and its ratio to the call of its group taken as base."""
    return [
        {name: row[name] for name in ("part", "case", "call", "base")}
        | {"ms": 1e3 * float(np.median(row["seconds"]))}
        | {name: row[name] for name in ("ratio", "low", "high")}
        for row in found["rows"]
    ]


def draw_calls(rows: list[dict[str, Any]], path: Path) -> None:
    """Ratios of what users call to the base of its group, one panel for each kind of call."""
    kinds = ("run", "objective", "E = 1", "lengths")
    titles = ("whole runs", "derivatives", "one local step a round", "many lengths")
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots(2, 2, height_ratios=(5, 2))
    for axis, kind, title in zip(axes.flat, kinds, titles, strict=True):
        part = [row for row in rows if row["part"] == kind and row["call"] != row["base"]]
        for k, row in enumerate(part):
            color = "#D55E00" if row["call"].startswith("jax") else "#0072B2"
            axis.plot([row["low"], row["high"]], [k, k], color=color, linewidth=3, alpha=0.4)
            axis.plot(row["ratio"], k, "o", color=color)
        several = len({row["case"] for row in part}) > 1
        names = [f"{row['call']}, {row['case']}" if several else row["call"] for row in part]
        axis.set_yticks(range(len(part)), names, fontsize=7)
        axis.set(xscale="log", title=title, xlabel=f"time / time of {part[0]['base']}")
        wide = max(row["ratio"] for row in part) > 100 * min(row["ratio"] for row in part)
        axis.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.axvline(1.0, color="0.6", linewidth=0.8)
        axis.invert_yaxis()
    figure.suptitle("Median and quartiles of ratios in one run (JAX in orange)", fontsize=10)
    figure.savefig(path, dpi=110)


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """Rows as CSV, numbers to five digits."""
    path.write_bytes(csv_bytes(rows[0], map(dict.values, rows), digits=5))


def versions() -> dict[str, Any]:
    """What was measured with, our peers included."""
    peers: dict[str, str] = {}
    for name in ("jax", "torch"):
        with suppress(PackageNotFoundError):
            peers[name] = version(name)
    return {"peers": peers, "processors": os.cpu_count(), **provenance()}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--preset", default="paper", help="of the sweep")
    parser.add_argument("--no-peers", action="store_true", help="without JAX and PyTorch")
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    told = versions()
    found: dict[str, Any] = {}
    common = ["--repeats", str(chosen.repeats), *(["--no-peers"] if chosen.no_peers else [])]
    if "rounds" in chosen.parts:
        found["rounds-1"] = measure("rounds", chosen.output, 1, *common, "--all")
        found["rounds-2"] = measure("rounds", chosen.output, 2, *common)
    if "calls" in chosen.parts:
        found["calls-2"] = measure("calls", chosen.output, 2, *common)
    if "scale" in chosen.parts:
        found["scale-1"] = measure("scale", chosen.output, 1)
    if "sweeps" in chosen.parts:
        found["sweeps-2"] = measure("sweeps", chosen.output, 2, "--preset", chosen.preset)
    rows = [
        row for t in (1, 2) if f"rounds-{t}" in found for row in round_rows(found[f"rounds-{t}"], t)
    ]
    print("\n".join([table(rows), *sentences(found)]) if rows else "\n".join(sentences(found)))
    if rows:
        write_table(rows, chosen.output / "rounds.csv")
        draw_costs(found, chosen.output / "cost.png")
    if "calls-2" in found:
        calls = call_rows(found["calls-2"])
        write_table(calls, chosen.output / "calls.csv")
        draw_calls(calls, chosen.output / "calls.png")
    (chosen.output / "provenance.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    (chosen.output / "results.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
