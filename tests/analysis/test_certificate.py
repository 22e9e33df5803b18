"""The descent certificate against the token-level twin (C4, C4f, additive identity)."""

import sys

import numpy as np
import pytest
import reference as ref
from bridge import READOUTS, make, to_params
from worlds import world

import linattn as la
from linattn._settings import Sampling
from linattn.analysis.applicable import LOCAL, SERVER
from linattn.federated.rounds import draw_batches, draw_participants
from linattn.streams import stream

LEDGER = (*ref.COSTS, "descent_paid", "step_term", *ref.SIGNED)


def check_ledger(kind, readout, seed, *, local_steps, batch_size, shares, num_clients=None):
    """The library's certificate is the twin's with its participants and minibatches."""
    _, inst, theta, value, problem, params = make(
        seed, kind, readout=readout, num_clients=num_clients
    )
    counts = np.broadcast_to(local_steps, len(inst.clients)).tolist()
    options = {"rounds": 3, "local_lr": 0.3 * ref.safe_step(inst, theta)}
    options["local_steps"] = local_steps
    applied, batches = [], []
    for t in range(3):
        chosen, weights = draw_participants(problem.weights, shares, seed=5, t=t)
        applied.append(dict(zip(chosen.tolist(), weights, strict=True)))
        batches.append({
            i: draw_batches(len(inst.clients[i]), batch_size, counts[i], stream(5, "batch", i, t))
            for i in chosen.tolist()
        } if batch_size else None)  # fmt: skip
    run = ref.fedavg(inst, theta, value, applied=applied,
                     batches=batches if batch_size else None, **options)  # fmt: skip
    theirs = ref.certificate(inst, run, options["local_lr"])
    ours = la.descent_certificate(
        problem,
        params,
        batch_size=batch_size,
        seed=5,
        participation=shares.participation,
        sampling=shares.scheme,
        **options,
    )
    scale = abs(theirs["profile"][0]) + sum(np.abs(theirs[name][-1]) for name in LEDGER)
    for name in ("profile", "certificate", *LEDGER):
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-11 * scale, err_msg=name)
    assert np.abs(ours["residual"]).max() <= 1e-12 * scale
    assert int(ours["violations"].sum()) == 0
    assert (ours["certificate"].values >= ours["profile"].values - 1e-12 * scale).all()
    return ours


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize(("batch_size", "participation"), [(None, 1.0), (2, 0.5)])
def test_ledger_is_the_twins(kind, readout, batch_size, participation):
    drawn = {"batch_size": batch_size, "shares": Sampling(participation)}
    check_ledger(kind, readout, 11 + READOUTS.index(readout), local_steps=4, **drawn)


def test_terms_add_up_to_the_certificate(small_problem, small_params):
    ledger = la.descent_certificate(
        small_problem, small_params, rounds=4, local_steps=3, local_lr=0.02, batch_size=2,
        participation=0.5,
    )  # fmt: skip
    costs = sum(ledger[name] for name in ref.COSTS)
    total = ledger["profile"][0] - ledger["descent_paid"] + costs - ledger["step_term"]
    costs_only = ("noise_cost", "sampling_cost")
    np.testing.assert_allclose(ledger["certificate"], total, rtol=1e-12)
    assert all(float(ledger[name][-1]) > 0 for name in costs_only)
    assert ledger.sizes["round"] == 5
    assert float(ledger["certificate"][0]) == float(ledger["profile"][0])


def test_no_drift_with_one_local_step(small_problem, small_params):
    ledger = la.descent_certificate(
        small_problem, small_params, rounds=5, local_steps=1, local_lr=0.05
    )
    assert float(ledger["drift_cost"][-1]) <= 1e-28
    assert float(ledger["tracking_cost"][-1]) > 1e-6


def test_cheap_curvature_bound_is_used_above_256_and_says_so():
    problem = world(num_clients=2, sequences_per_client=3, dim=17)
    params = la.initial_params(problem, scale=0.3)
    ledger = la.descent_certificate(problem, params, rounds=2, local_steps=2, local_lr=0.01)
    assert ledger.attrs["curvature_kind"] == "cheap bound"
    exact = 0.01 * la.KernelProfile(problem).curvature(params)
    assert float(ledger["eta_L"][1]) >= exact * (1 - 1e-12)
    assert int(ledger["violations"].sum()) == 0


def test_halved_curvature_would_be_violated(monkeypatch):
    """The constant L_K is needed: at large steps the right side with L_K/2 falls below P."""
    from linattn.analysis.certificate import Ledger

    def violations():
        found = 0
        for seed in range(30):
            _, inst, theta, _, problem, params = make(seed, "merged", num_heads=1)
            rate = 1.9 / ref.curvature(inst, theta)
            options = {"rounds": 1, "local_steps": 1, "local_lr": rate}
            found += int(la.descent_certificate(problem, params, **options)["violations"].sum())
        return found

    assert violations() == 0
    honest = Ledger._merged_curvature

    def halved(self, update):
        bend, largest = honest(self, update)
        return bend, 0.5 * largest

    monkeypatch.setattr(Ledger, "_merged_curvature", halved)
    assert violations() > 0


def test_divergence_is_reported(small_problem, small_params):
    ledger = la.descent_certificate(
        small_problem, small_params, rounds=30, local_steps=5, local_lr=50.0
    )
    ended = ledger.attrs["diverged_round"]
    assert ended is not None
    assert np.isinf(ledger["certificate"].values[ended + 1 :]).all()
    assert np.isfinite(ledger["certificate"].values[: ended + 1]).all()


@pytest.mark.parametrize(
    ("profile", "bound", "looseness"),
    [
        ([4.0, 1.0, 2.0], [4.0, 2.5, 9.0], 0.5),  # at the argmin of P, not at the end
        ([4.0, 3.0, 2.0], [4.0, 3.5, 2.0], 0.0),
        ([4.0, 5.0, 6.0], [4.0, 7.0, 9.0], np.nan),  # P never fell
    ],
)
def test_looseness_is_relative_to_the_fall(profile, bound, looseness):
    import xarray as xr

    ledger = xr.Dataset({"profile": ("round", profile), "certificate": ("round", bound)})
    assert la.looseness(ledger) == pytest.approx(looseness, nan_ok=True)


def test_start_does_not_need_a_value(small_problem):
    params = la.initial_params(small_problem)
    assert not params.value.any()
    ledger = la.descent_certificate(small_problem, params, rounds=2, local_steps=2, local_lr=0.01)
    assert int(ledger["violations"].sum()) == 0
    assert to_params((params.kernel,), params.value).flat.size == params.flat.size


def test_divergence_ends_the_ledger_where_it_happens(small_problem, small_params):
    """A step at which a few rounds are finite: exactly these are kept."""
    options = {"local_steps": 5, "local_lr": 0.4}
    ledger = la.descent_certificate(small_problem, small_params, rounds=30, **options)
    ended = ledger.attrs["diverged_round"]
    assert 1 <= ended < 30
    finite = np.isfinite(ledger["profile"].values)
    assert finite.tolist() == [True] * (ended + 1) + [False] * (30 - ended)
    kept = la.descent_certificate(small_problem, small_params, rounds=ended, **options)
    assert kept.attrs["diverged_round"] is None


@pytest.mark.parametrize("seed", range(3))
def test_curvature_without_the_matrix_is_the_same(seed, monkeypatch):
    """Above 256 kernel entries ⟨g, 𝓚g⟩ comes from a product with g; the identity stays exact."""
    from linattn.analysis import certificate

    *_, problem, params = make(seed, "merged")
    options = {"rounds": 2, "local_steps": 3, "local_lr": 0.2 * la.safe_step(problem, params)}
    exact = la.descent_certificate(problem, params, **options)
    monkeypatch.setattr(certificate, "EXACT_CURVATURE_SIZE", 0)
    cheap = la.descent_certificate(problem, params, **options)
    assert cheap.attrs["curvature_kind"] == "cheap bound"
    assert np.allclose(cheap["curvature"].values, exact["curvature"].values, rtol=1e-9, atol=0.0)


# ------------------------------------------------------------------------ unequal work, sampling


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("sampling", ["uniform", "weighted"])
@pytest.mark.parametrize("participation", [1.0, 0.5])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_ledger_of_unequal_work_is_the_twins(kind, sampling, participation, batch_size):
    """A finished client stays in the virtual iterate and adds nothing else."""
    drawn = {"batch_size": batch_size, "shares": Sampling(participation, sampling)}
    ours = check_ledger(kind, None, 17, local_steps=[3, 1, 5, 2], num_clients=4, **drawn)
    assert float(ours["sampling_cost"][-1]) > 0.0


def test_stragglers_and_schedules_are_covered(small_problem, small_params):
    """C4 holds at every step size, whoever works."""
    ledger = la.descent_certificate(
        small_problem, small_params, rounds=6, local_steps=[4, 2, 6, 3], stragglers=0.5,
        local_lr=lambda t: 0.05 / (1 + t), sampling="weighted", participation=0.75, batch_size=3,
        seed=2,
    )  # fmt: skip
    assert int(ledger["violations"].sum()) == 0
    scale = abs(float(ledger["profile"][0])) + float(ledger["descent_paid"][-1])
    assert np.abs(ledger["residual"]).max() <= 1e-12 * scale


def test_one_per_client_for_all_alike_is_one_number(small_problem, small_params):
    options = {"rounds": 3, "local_lr": 0.02}
    ledgers = [
        la.descent_certificate(small_problem, small_params, local_steps=e, **options)
        for e in (3, [3] * 4)
    ]
    for name in ledgers[0].data_vars:
        assert ledgers[0][name].values.tobytes() == ledgers[1][name].values.tobytes(), name


# ------------------------------------------------------------------------ what it does not cover

OTHERS = {
    "proximal": la.fed_prox(prox=3.0),
    "corrected": la.scaffold(),
    "server_step": la.fed_avg(server_momentum=0.8),
    "normalized": la.fed_nova(),
    "adaptive": la.fed_adam(server_lr=0.05),
    "personal": la.local_attention(blocks=["value"]),
}


@pytest.mark.parametrize("reason", OTHERS)
def test_methods_that_do_not_average_plain_steps_are_refused(small_problem, small_params, reason):
    options = {"rounds": 20, "local_steps": [3, 1, 6, 3], "local_lr": 0.05, "participation": 0.5,
               "method": OTHERS[reason]}  # fmt: skip
    with pytest.raises(ValueError, match=f"plain gradient steps, .* {(LOCAL | SERVER)[reason]}"):
        la.descent_certificate(small_problem, small_params, **options)
    forced = la.descent_certificate(small_problem, small_params, force=True, **options)
    residual = np.abs(forced["residual"]).max() / abs(float(forced["profile"][0]))
    assert residual > 1e-4 or reason == "personal"  # its kernel is averaged; the value block is not


def test_warm_ups_with_memory_or_participants_of_their_own_are_covered(small_problem, small_params):
    options = {"rounds": 3, "local_steps": 3, "local_lr": 0.02}
    plain = la.descent_certificate(small_problem, small_params, **options)
    for method in (
        la.fed_frozen(warmup_rounds=3, frozen_participation=0.5),
        la.fed_frozen(warmup_rounds=9),
        la.fine_tuned(steps=2),
    ):
        same = la.descent_certificate(small_problem, small_params, method=method, **options)
        assert same["certificate"].values.tobytes() == plain["certificate"].values.tobytes()
    for method in (
        la.fed_frozen(warmup_rounds=2),
        la.fed_part(initial_rounds=1, rounds_per_group=1),
        la.selective(budget=1),
    ):
        with pytest.raises(ValueError, match="rounds must train the kernel at every participant"):
            la.descent_certificate(small_problem, small_params, method=method, **options)


@pytest.mark.parametrize("most", [1, 100])
def test_a_round_in_parts_is_the_whole_round(small_problem, small_factored, monkeypatch, most):
    options = {"rounds": 4, "local_steps": 5, "local_lr": 0.02}
    whole = la.descent_certificate(small_problem, small_factored, **options)
    monkeypatch.setattr(sys.modules["linattn.analysis.certificate"], "MAX_NUMBERS", most)
    assert whole.identical(la.descent_certificate(small_problem, small_factored, **options))
