import numpy as np
import pytest
from linattn.oracles.added import Added

import linattn as la

PULLS = (0.5, 1.0, 1.5)
RUN = {"rounds": 3, "local_lr": 0.1}


@pytest.mark.parametrize("method", [la.fed_avg(), la.fed_prox(prox=0.0), la.fed_nova()])
def test_rounds_are_the_mean_of_powers(method, small_params):
    end = la.run(method, Added(PULLS), small_params, local_steps=2, **RUN)
    factor = np.mean([(1.0 - 0.1 * pull) ** 2 for pull in PULLS]) ** 3
    np.testing.assert_allclose(end.params.flat, factor * small_params.flat, rtol=1e-12)
    assert (np.diff(end.columns["objective"]) < 0.0).all()


def test_one_step_is_centralized_and_theory_measures_its_drift(small_params):
    end = la.run(la.fed_avg(), Added(PULLS), small_params, local_steps=1, **RUN)
    np.testing.assert_allclose(end.params.flat, 0.9**3 * small_params.flat, rtol=1e-12)
    found = la.predict_run(Added(PULLS), small_params, local_steps=2, tolerance=0, **RUN)
    ran = la.run(la.fed_avg(), Added(PULLS), small_params, local_steps=2, **RUN)
    np.testing.assert_allclose(found.path[-1].flat, ran.params.flat, rtol=1e-12)
