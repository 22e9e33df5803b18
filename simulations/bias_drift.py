"""The bias-drift trade-off: final loss against warm-up length, in all its exact parts (C9).

Every run carries its controls: identical clients, one local step, and synchronized steps.
Run ``python simulations/bias_drift.py --preset quick``; results go to ``./results``.
"""

from linattn.experiments import BiasDriftSpec, Grid, InitialSpec, Sweep

FACTORED = InitialSpec(kernel="factored", rank=3)

SWEEP = Sweep(
    name="bias_drift",
    presets={
        "paper": [
            Grid(
                BiasDriftSpec(rounds=400, num_lengths=20, local_steps=(1, 10, 50)),
                {
                    "seed": range(10),
                    "problem.value_heterogeneity": [0.0, 0.75, 1.5],
                    "problem.covariate_heterogeneity": [0.0, 0.3],
                },
            ),
            Grid(
                BiasDriftSpec(
                    rounds=400, num_lengths=20, local_steps=(1, 10, 50), initial=FACTORED
                ),
                {
                    "seed": range(10),
                    "problem.value_heterogeneity": [0.75],
                    "problem.covariate_heterogeneity": [0.3],
                    "problem.kernel_heterogeneity": [0.0, 0.5],
                },
            ),
        ],
        "quick": [
            Grid(
                BiasDriftSpec(rounds=200, num_lengths=12, local_steps=(1, 20)),
                {
                    "seed": range(3),
                    "problem.value_heterogeneity": [0.0, 1.5],
                    "problem.covariate_heterogeneity": [0.0, 0.3],
                },
            ),
        ],
        "tiny": [
            Grid(
                BiasDriftSpec(rounds=20, num_lengths=8, local_steps=(1, 5), num_starts=4),
                {
                    "problem.value_heterogeneity": [1.5],
                    "problem.covariate_heterogeneity": [0.3],
                },
            ),
        ],
    },
)

if __name__ == "__main__":
    from linattn.cli import simulation_main

    simulation_main(SWEEP)
