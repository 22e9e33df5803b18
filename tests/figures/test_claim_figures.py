"""The jobs of bounds, and the figures drawn from them."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from experiments.toy_runs import SMALL

import linattn as la
from linattn.claims.instances import random_instance
from linattn.claims.table import check_instance
from linattn.experiments import BoundsSpec, CertificateSpec, InitialSpec, OrdersSpec, TightnessSpec
from linattn.experiments.jobs.common import prepared
from linattn.experiments.store import load_results, write_manifest, write_result
from linattn.experiments.worker import compute

FIGURES = Path(__file__).parents[2] / "figures"
TIGHTNESS = TightnessSpec(seed=4, first=3, count=2)
CERTIFICATE = CertificateSpec(problem=SMALL, rounds=8, local_steps=(1, 10), num_starts=2)
BOUNDS = BoundsSpec(problem=SMALL, rounds=2, local_steps=(2, 5, 40))
ORDERS = OrdersSpec(
    problem=SMALL, initial=InitialSpec(kernel="factored", rank=2), rounds=2, local_steps=(2, 3, 5)
)


def figure(name):
    spec = importlib.util.spec_from_file_location(name, FIGURES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("claims")
    for spec, name in (
        (TIGHTNESS, "tightness"),
        (BOUNDS, "bounds"),
        (ORDERS, "orders"),
        (CERTIFICATE, "certificate"),
    ):
        write_result(folder, spec, compute(spec))
        write_manifest(folder, name, preset="tiny", specs=[spec])
    return folder


def dataset(store, kind):
    (result,) = load_results(store, kind)
    return result.dataset


def test_tightness_is_that_of_the_claims(store):
    found = dataset(store, "tightness")
    assert found["instance"].values.tolist() == [3, 4]
    assert "C15" not in found["claim"].values
    for name in ("C3f bound", "C8 bound", "Khaled"):
        verdict = check_instance(
            next(c for c in la.claims() if c.id == name), random_instance(4, 4)
        )
        cell = found.sel(claim=name, instance=4)
        assert int(cell["status"]) == ("holds", "refused", "violated").index(verdict.status)
        expected = np.nan if verdict.status == "refused" else verdict.tightness
        assert np.isclose(float(cell["tightness"]), expected, equal_nan=True)
        assert bool(cell["recalled"]) is (name == "Khaled")


def test_bias_lies_between_its_bounds(store):
    found = dataset(store, "bounds")
    bias = found["bias"].values
    assert (found["lower"].values <= bias * (1 + 1e-9)).all()
    assert (found["lower"].values > 0.01 * bias).all()
    for name in ("certified", "crude", "operator"):
        bound = found[name].values
        assert (bound[np.isfinite(bound)] >= bias[np.isfinite(bound)]).all()
        assert np.isfinite(bound).any()
    assert (found["condition"].values <= found["condition_bound"].values * (1 + 1e-9)).all()
    assert (np.diff(bias) > 0).all()


def test_orders_are_those_of_the_statistics(store):
    """Each column at one step size from public pieces, and no drift without local steps."""
    found = dataset(store, "orders")
    problem, start = prepared(ORDERS)
    kernel = la.run(la.fed_avg(), problem, start, rounds=2, local_steps=10, local_lr=0.05).params
    eta = float(found["step_size"][3])
    stage = la.frozen_stage(problem, kernel, local_steps=10, local_lr=eta)
    row = found.isel(step_size=3)
    assert float(row["bias_by_step"]) == pytest.approx(np.linalg.norm(stage.bias), rel=1e-9)
    at = {v: la.Joint(problem).value(kernel.replace(value=x.reshape(kernel.value.shape)))
          for v, x in (("fixed", stage.fixed_point), ("star", stage.minimizer))}  # fmt: skip
    assert float(row["excess_by_step"]) == pytest.approx(at["fixed"] - at["star"], rel=1e-6)
    once = la.run(la.fed_avg(), problem, kernel, rounds=1, local_steps=10, local_lr=eta).params
    joint = la.Joint(problem).gradient(kernel).flat
    error = (kernel.flat - once.flat) / (10 * eta) - joint
    assert float(row["round_error_by_step"]) == pytest.approx(np.linalg.norm(error), rel=1e-6)
    with pytest.raises(ValueError, match="at 1 no drift"):
        OrdersSpec(local_steps=(1, 2))


def test_slopes_are_the_published_exponents(store):
    module = figure("orders")
    (regime,) = module.regimes(load_results(store, "orders"))
    for name, order in module.ORDERS.items():
        for by_step in (True, False):
            slope = module.slopes(regime, name, by_step=by_step)
            assert slope == pytest.approx(order.exponent, abs=0.05), (name, by_step)


def test_jobs_are_deterministic():
    for spec in (TIGHTNESS, BOUNDS, ORDERS):
        first, second = compute(spec), compute(spec)
        assert first == second


def test_figures_show_what_is_stored(store, tmp_path):
    for name in ("tightness", "bounds", "orders"):
        module = figure(name)
        files = module.draw(store, tmp_path)
        assert {f.suffix for f in files} == {".png", ".pdf", ".csv"}
        assert module.summary(store)
    lines = list(csv.DictReader((tmp_path / "tightness.csv").read_text("utf-8").splitlines()))
    found = dataset(store, "tightness")
    shown = figure("tightness").rows(load_results(store, "tightness"))
    assert {row.claim for row in shown} == set(found["claim"].values)
    medians = [float(np.median(r.tightness)) for r in shown if r.tightness.size]
    assert medians == sorted(medians)
    drawn = {float(line["x"]) for line in lines if line["series"] == "proved here"}
    assert drawn <= set(medians)
    table = csv.DictReader((tmp_path / "bounds.csv").read_text("utf-8").splitlines())
    bias = [float(line["y"]) for line in table if line["series"] == "exact bias"]
    assert np.allclose(bias, dataset(store, "bounds")["bias"].values)


def test_argmin_figure_has_a_point_per_run(store, tmp_path):
    module = figure("certificate_argmin")
    assert module.draw(store, tmp_path)
    found = dataset(store, "certificate")
    runs = module.collect(module.regimes(module.last_sweep(store, "certificate")))
    assert runs.argmin.tolist() == found["argmin_certificate"].values.tolist()
    assert runs.eta_curvature.tolist() == found["eta_L"].values.max(axis=1).tolist()
    table = csv.DictReader((tmp_path / "certificate_argmin.csv").read_text("utf-8").splitlines())
    first = [line for line in table if line["panel"].startswith("argmin")]
    drawn = [float(line["y"]) for line in first if line["series"] == "merged"]
    assert drawn == runs.argmin[runs.oracle >= 0].tolist()
    assert "runs with a trade-off" in module.summary(store)
