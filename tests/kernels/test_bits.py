"""The bits of a run do not depend on which process compiled the kernels."""

from pathlib import Path

from processes import printed

import linattn._kernels

SCRIPT = """
import hashlib
import linattn as la

for heads, kernel, batch in ((1, "merged", None), (1, "factored", None), (2, "merged", 4)):
    problem = la.synthetic_problem(
        num_clients=3, sequences_per_client=64, num_tokens=8, dim=6, num_outputs=3,
        value_heterogeneity=1.0, value_ridge=0.05, kernel_ridge=0.01, noise=0.1,
    )
    params = la.initial_params(problem, num_heads=heads, kernel=kernel)
    result = la.run(
        la.fed_avg(), problem, params, rounds=5, local_steps=4, local_lr=0.05, batch_size=batch
    )
    found = [result.params.flat, *result.columns.values()]
    print(hashlib.sha256(b"".join(array.tobytes() for array in found)).hexdigest())
"""


def digests(folder):
    """What a process of its own prints with compiled code in `folder`."""
    return printed("-c", SCRIPT, NUMBA_CACHE_DIR=str(folder), NUMBA_DISABLE_JIT="0").split()


def test_bits_do_not_depend_on_who_compiled(tmp_path):
    compiling, loading = digests(tmp_path), digests(tmp_path)
    assert len(compiling) == 3
    assert any(tmp_path.rglob("*.nbc"))  # the second process had something to load
    assert compiling == loading


def test_no_sum_is_reordered():
    folder = Path(linattn._kernels.__file__).parent
    for path in folder.glob("*.py"):
        assert "fastmath" not in path.read_text(encoding="utf-8"), path
