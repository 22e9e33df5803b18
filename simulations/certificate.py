"""The descent certificate C4 along the warm-up: bought, paid, and how tight it is.

Run ``python simulations/certificate.py --preset quick``; results go to ``./results``.
"""

from linattn.experiments import CertificateSpec, Grid, InitialSpec, ProblemSpec, Sweep

HETEROGENEOUS = ProblemSpec(value_heterogeneity=0.75, covariate_heterogeneity=0.3)

SWEEP = Sweep(
    name="certificate",
    presets={
        "paper": [
            Grid(
                CertificateSpec(rounds=100, local_steps=(1, 10, 50)),
                {
                    "seed": range(10),
                    "problem.value_heterogeneity": [0.0, 0.75, 1.5],
                    "problem.covariate_heterogeneity": [0.0, 0.3],
                },
            ),
            Grid(
                CertificateSpec(
                    rounds=100,
                    local_steps=(1, 10, 50),
                    problem=HETEROGENEOUS,
                    initial=InitialSpec(kernel="factored", rank=3),
                ),
                {"seed": range(10), "problem.kernel_heterogeneity": [0.0, 0.5]},
            ),
        ],
        "quick": [
            Grid(
                CertificateSpec(rounds=60, local_steps=(1, 20)),
                {
                    "seed": range(3),
                    "problem.value_heterogeneity": [1.5],
                    "problem.covariate_heterogeneity": [0.0, 0.3],
                },
            ),
        ],
        "tiny": [
            Grid(
                CertificateSpec(rounds=10, local_steps=(1, 5), num_starts=4, problem=HETEROGENEOUS)
            ),
        ],
    },
)

if __name__ == "__main__":
    from linattn.cli import simulation_main

    simulation_main(SWEEP)
