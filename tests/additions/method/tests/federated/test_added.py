import linattn as la
from linattn.federated.methods.table import Choices, make_method


def test_it_is_fed_prox_to_the_bit(small_problem, small_params):
    common = {"rounds": 2, "local_steps": 3, "local_lr": 0.05}
    listed = make_method("added", Choices(small_params, 3))
    ends = [la.run(m, small_problem, small_params, **common).params.flat
            for m in (listed, la.fed_prox(prox=0.5), la.fed_avg())]  # fmt: skip
    assert (ends[0] == ends[1]).all()
    assert (ends[0] != ends[2]).any()
