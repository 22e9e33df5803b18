"""One FedAvg round as an inexact gradient step: ‖e‖ ≤ drift factor × gradient norms."""

from __future__ import annotations

import numpy as np

from linattn._typing import Array
from linattn.analysis.applicable import FULL_BATCHES, PLAIN_STEPS
from linattn.analysis.trajectory import LocalPath, client_gradients
from linattn.claims.along import frozen_rounds, shown, warmup_rounds
from linattn.claims.conditions import (
    FINITE_FROZEN,
    FINITE_WARMUP,
    FINITE_WARMUP_ROUND,
    client_steps,
)
from linattn.claims.frozen_runs import stage_of
from linattn.claims.record import LONG_BUDGET, Claim, Constant, Instance, Measurement, Requirement
from linattn.claims.sizes import gradient_terms, path_size, rounded
from linattn.linalg import spectral_norms
from linattn.objectives.forms import SequenceForm
from linattn.theory.drift import (
    BlockConstants,
    block_drift,
    general_drift_factor,
    quadratic_drift_factor,
)
from linattn.types import Params


def _drift(path: LocalPath, block: slice = slice(None)) -> float:
    """‖Σw_i(1/E)Σ_k(ĝ_i^k − ∇F_i(w))‖ in some entries."""
    change = path.gradients.mean(axis=0) - path.full_gradients[0]
    return float(np.linalg.norm(path.weights @ change[:, block]))


def _noise(instance: Instance, path: LocalPath, largest: float) -> float:
    """Rounding of gradients, and of the places they are taken at; `largest` is a curvature."""
    return rounded(gradient_terms(instance) + largest * path_size(path), LONG_BUDGET)


def _norms(rows: Array) -> Array:
    return np.asarray(np.linalg.norm(rows, axis=-1))


def _largest_ratio(numerators: Array, denominators: Array) -> Array:
    """Largest ratio over local steps of every client, (P,); zero where nothing moved."""
    if not len(numerators):
        return np.zeros(numerators.shape[1])
    moved = denominators > 0.0
    ratios = np.where(moved, numerators / np.where(moved, denominators, 1.0), 0.0)
    return np.asarray(ratios.max(axis=0))


def _general(instance: Instance) -> Measurement:
    rows, largest = [], 0.0
    for path in warmup_rounds(instance):
        changes = _norms(np.diff(path.full_gradients, axis=0))
        moves = _norms(np.diff(path.places[:-1], axis=0))
        secants = _largest_ratio(changes, moves)
        largest = max(largest, float(secants.max()))
        factors = [general_drift_factor(path.step_size * x, len(path.gradients)) for x in secants]
        starts = _norms(path.full_gradients[0])
        bound = float(path.weights @ (np.array(factors) * starts))
        measured = _drift(path)
        noise = _noise(instance, path, float(secants.max()))
        rows.append((measured, bound, float(path.weights @ starts) + measured + noise))
    return Measurement(
        *shown(rows, LONG_BUDGET),
        constants=(Constant("max L_i", largest, "secant along the local path"),),
    )


def _quadratic(instance: Instance) -> Measurement:
    stage = stage_of(instance)
    steps = stage.local_lr * spectral_norms(stage.hessians)
    factors = np.array([quadratic_drift_factor(float(x), stage.local_steps) for x in steps])
    value, rows = instance.params.layout.slices["value"], []
    for path in frozen_rounds(instance):
        starts = _norms(path.full_gradients[0][:, value])
        bound = float(path.weights @ (factors[path.participants] * starts))
        noise = _noise(instance, path, float(steps.max()) / stage.local_lr)
        rows.append((_drift(path, value), bound, float(path.weights @ starts) + noise))
    return Measurement(
        *shown(rows, LONG_BUDGET),
        constants=(Constant("max ψ_q", float(factors.max()), "exact eigenvalues of A_i"),),
    )


def _block_secants(instance: Instance, path: LocalPath) -> list[BlockConstants]:
    """Secants of every client's moves of one block alone: first the kernel, then the value."""
    value = instance.params.layout.slices["value"]
    kernel = slice(0, value.start)
    before, after = path.places[:-2], path.places[1:-1]
    between = np.concatenate([after[..., kernel], before[..., value]], axis=-1)
    half = np.zeros_like(between)
    if len(between):
        half = client_gradients(instance.problem, instance.params, path.participants, between)
    first, second = half - path.full_gradients[:-1], path.full_gradients[1:] - half
    moved = [(first, kernel), (second, value)]  # what changes, and the block that moves
    columns = [
        _largest_ratio(_norms(change[..., of]), _norms((after - before)[..., block]))
        for of in (kernel, value)
        for change, block in moved
    ]
    return [BlockConstants(*map(float, row)) for row in zip(*columns, strict=True)]


def _path_slack(instance: Instance) -> float:
    """2 − η max λ_max(A_i) at the kernels of all local steps of the first round."""
    path = warmup_rounds(instance)[0]
    problem, layout, largest = instance.problem, instance.params.layout, 0.0
    for k, i in enumerate(path.participants):
        held = problem.statistics.take(problem.client(int(i)))
        form = SequenceForm(held, np.full(len(held.energy), 1.0 / len(held.energy)))
        kernels = (Params(layout, flat).kernels() for flat in path.places[:-1, k])
        hessians = np.stack([form.normal_equations(kernel).hessian for kernel in kernels])
        largest = max(largest, float(spectral_norms(hessians).max()))
    return 2.0 - path.step_size * (largest + problem.value_ridge)


def _blocks(instance: Instance) -> Measurement:
    """The first round, kernel block general and value block convex-quadratic."""
    path = warmup_rounds(instance)[0]
    secants = _block_secants(instance, path)
    split = instance.params.layout.kernel_part.stop
    starts = path.full_gradients[0]
    norms = np.stack([_norms(starts[:, :split]), _norms(starts[:, split:])], axis=1)
    eta, count, pairs = path.step_size, len(path.gradients), zip(secants, norms, strict=True)
    bounds = [
        block_drift(eta, count, constants=c, start=(float(b), float(v))) for c, (b, v) in pairs
    ]
    measured, largest = _drift(path), float(np.max(secants))
    noise = _noise(instance, path, largest)
    return Measurement(
        measured,
        float(np.linalg.norm(path.weights @ bounds)),
        float(path.weights @ norms.sum(axis=1)) + measured + noise,
        constants=(
            Constant("max L_θθ", max(c.kernel for c in secants), "secant along the local path"),
            Constant("max L_VV", max(c.value for c in secants), "secant along the local path"),
        ),
    )


CLAIMS = (
    Claim(
        "drift general",
        "‖e‖ ≤ Σp ψ(ηL_i)‖∇F_i(w)‖, ψ = ((1 + x)^E − 1)/(xE) − 1, all blocks",
        "upper",
        "Inexact gradient descent",
        _general,
        needs=(PLAIN_STEPS, FULL_BATCHES),
        conditions=(FINITE_WARMUP,),
        budget=LONG_BUDGET,
    ),
    Claim(
        "drift quadratic",
        "‖e‖ ≤ Σp ψ_q(ηL_i)‖∇F_i(V)‖, ψ_q = 1 − (1 − (1 − x)^E)/(xE), value block",
        "upper",
        "Inexact gradient descent",
        _quadratic,
        needs=(PLAIN_STEPS, FULL_BATCHES),
        conditions=(client_steps(1.0), FINITE_FROZEN),
        budget=LONG_BUDGET,
    ),
    Claim(
        "drift blocks",
        "‖e‖ block by block: ψ-like growth for the kernel, none for the value block",
        "upper",
        "Inexact gradient descent",
        _blocks,
        needs=(PLAIN_STEPS, FULL_BATCHES),
        conditions=(
            FINITE_WARMUP_ROUND,
            Requirement("ηλ_max(A_i) ≤ 2 on the path", _path_slack),
        ),
        budget=LONG_BUDGET,
    ),
)
