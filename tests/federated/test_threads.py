"""The number of threads, of BLAS or over clients, does not change a bit of a run."""

from processes import printed

CODE = """
import hashlib
import linattn as la
sizes = dict(num_clients=2, sequences_per_client=3, num_tokens=8, dim=160, num_outputs=4)
for readout in ("token", "mean"):
    problem = la.synthetic_problem(**sizes, readout=readout, value_ridge=0.05, kernel_ridge=0.01)
    params = la.initial_params(problem, scale=0.3)
    result = la.run(la.fed_frozen(warmup_rounds=1, frozen_lr="safe"), problem, params, rounds=2,
        local_steps=8, local_lr=0.001)
    digest = hashlib.sha256()
    for array in (*problem.statistics, result.params.flat, *result.columns.values()):
        if array is not None:
            digest.update(array.tobytes())
    print(result.outcome.status, digest.hexdigest())
"""


def digest_with(threads):
    """What a fresh process with that many threads computes."""
    names = (f"{library}_NUM_THREADS" for library in ("OPENBLAS", "OMP", "NUMBA"))
    return printed("-c", CODE, **dict.fromkeys(names, str(threads))).split()


def test_one_and_two_threads_give_the_same_bits():
    first, second = digest_with(1), digest_with(2)
    assert first[0] == first[2] == "completed"
    assert first == second
