"""Small synthetic federations, of which a test names what it changes."""

import linattn as la

APART = {"covariate_heterogeneity": 0.3, "kernel_heterogeneity": 0.3, "value_heterogeneity": 1.0}


def world(**changes):
    """Four clients that differ by chance alone, with a little noise and small ridges."""
    usual = {"num_clients": 4, "sequences_per_client": 6, "num_tokens": 5, "dim": 3,
             "num_outputs": 2, "value_ridge": 0.05, "kernel_ridge": 0.01, "noise": 0.1}  # fmt: skip
    return la.synthetic_problem(**(usual | changes))
