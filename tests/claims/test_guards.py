"""Methods x theorems x settings: whether a claim applies, tried instead of declared.

Where it does not, a stored instance breaks it, or there is a reason why none does; where it does,
it holds.
"""

import numpy as np
import pytest
from claim_cases.guards import BREAKS, DEVIATIONS, OWN, REASONS
from claim_cases.pairs import drawn, factored, small

import linattn as la
from linattn.claims import Instance, get_claim
from linattn.claims.record import UNJUDGED
from linattn.claims.table import check_all, check_instance

JUDGED = [claim for claim in la.claims() if claim.kind not in UNJUDGED and claim.id != "C15"]
USUAL = [Instance(*start(), 3, 4, 0.02) for start in (small, factored)]


NOTHING_LEFT = {
    # An error as large as its slope leaves nothing of the relative rate.
    ("inexact relative", "minibatches"), ("inexact relative", "sampling"),
    # Where one block alone moves, averaging does not mismatch.
    ("C10", "fed_part"),
    # Too many minibatches to list.
    ("C20", "minibatches"),
}  # fmt: skip


def kind(deviation):
    """The deviation without its strength."""
    return deviation.removeprefix("sampled ").split(" ")[0]


def reasons(claim, deviation):
    own = OWN.get((claim, deviation))
    return [own] if isinstance(own, str) else [
        reason for reason, (claims, deviations) in REASONS.items()
        if claim in claims and kind(deviation) in deviations
    ]  # fmt: skip


@pytest.mark.parametrize(("claim", "deviation"), BREAKS, ids=map("-".join, BREAKS))
def test_a_stored_instance_breaks_what_does_not_apply(claim, deviation):
    at = BREAKS[claim, deviation]()
    broken = DEVIATIONS[deviation](at)
    assert check_instance(get_claim(claim), at).status == "holds"
    without = check_instance(get_claim(claim), broken)
    assert without.status == "not applicable"
    assert all(condition.instead in without.reason for condition in without.unmet)
    forced = check_instance(get_claim(claim), broken, force=True)
    assert forced.status == "violated"
    assert np.isfinite([forced.measured, forced.bound]).all()


@pytest.mark.parametrize("deviation", DEVIATIONS)
def test_every_claim_applies_and_holds_or_there_is_a_reason(deviation):
    """Claims that apply are judged, and none is violated; the others are in the tables."""
    statuses = {}
    for at in USUAL:
        there = DEVIATIONS[deviation](at)
        for claim, verdict in zip(JUDGED, check_all(JUDGED, there), strict=True):
            statuses.setdefault(claim.id, set()).add(verdict.status)
            if verdict.status != "not applicable" or "kernel" in verdict.unmet[0].name:
                continue
            if (claim.id, deviation) in BREAKS:
                continue
            others = {name for other, name in BREAKS if other == claim.id}
            assert kind(deviation) in map(kind, others) or reasons(claim.id, deviation), claim.id
            if reasons(claim.id, deviation):  # a reason that is none would be a stored instance
                assert check_instance(claim, there, force=True).status != "violated", claim.id
    for claim, found in statuses.items():
        assert "violated" not in found, claim
        applies = found - {"not applicable"}
        assert not applies or "holds" in applies or (claim, deviation) in NOTHING_LEFT, claim


def test_random_settings_are_never_judged_where_the_claim_does_not_apply():
    """Whatever is judged was measured, and needs nothing that the setting lacks."""
    rng, judged = np.random.default_rng(0), 0
    for k in range(25):
        at = drawn(int(rng.integers(40)), local_steps=int(rng.integers(1, 12)))
        for deviation in rng.choice(list(DEVIATIONS), size=rng.integers(0, 3), replace=False):
            at = DEVIATIONS[deviation](at)
        if k % 5 == 0:
            at = at._replace(local_lr=at.local_lr * 10.0 ** rng.uniform(-18, 6))
        for claim in JUDGED:
            if claim.share < 0.1 and k % 8:
                continue  # long
            found = check_instance(claim, at)
            assert found.status != "violated", found
            if found.status == "holds":
                judged += 1
                assert not found.unmet
                assert np.isfinite([found.measured, found.bound, found.scale]).all()
                assert max(abs(found.measured), abs(found.bound)) > claim.budget * found.scale
    assert judged > 200


def test_settings_that_come_to_the_same_are_not_refused():
    """Batches of everything, participation that rounds to everybody, fine-tuning after the run."""
    at = Instance(*small(), 3, 5, 0.02)
    plain = check_instance(get_claim("C9"), at)
    same = [at._replace(batch_size=6), at._replace(participation=0.9),
            at._replace(method=la.fine_tuned(steps=2))]  # fmt: skip
    for other in same:
        found = check_instance(get_claim("C9"), other)
        assert found.status == plain.status == "holds"
        assert found.measured == pytest.approx(plain.measured, rel=1e-13)
    assert check_instance(get_claim("C9"), at._replace(batch_size=5)).status == "not applicable"


METHODS = {
    "fed_prox": (la.fed_prox(prox=0.1), "adds a proximal term"),
    "moon": (la.moon(weight=0.1), "corrects the gradients"),
    "scaffold": (la.scaffold(), "corrects the gradients"),
    "momentum": (la.fed_avg(server_momentum=0.5), "does not step to the weighted mean"),
    "fed_nova": (la.fed_nova(), "normalizes the moves"),
    "fed_adam": (la.fed_adam(server_lr=0.1), "has a step size per entry"),
    "local_attention": (la.local_attention(blocks=["kernel"]), "models or blocks that stay"),
    "fed_part": (la.fed_part(initial_rounds=0, rounds_per_group=1), "does not train every block"),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_certificate_of_another_method_is_refused(name):
    problem, params = small()
    method, reason = METHODS[name]
    options = {"rounds": 2, "local_steps": 2, "local_lr": 0.01}
    # Which blocks train is judged round by round.
    said = f"not applicable.*{reason}" if name != "fed_part" else "must train the kernel"
    with pytest.raises(ValueError, match=said):
        la.descent_certificate(problem, params, method=method, **options)
    found = la.check("C4", problem, params, method=method)
    assert found.status == "not applicable"
    assert reason in found.reason


def test_a_method_that_does_nothing_else_is_fed_avg():
    problem, params = small()
    for method in (la.fed_avg(), la.fed_prox(prox=0.0), la.fine_tuned(steps=2)):
        assert la.check("C4", problem, params, method=method).status == "holds"
