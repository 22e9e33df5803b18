"""The frozen stage: simulated rounds against the closed form C7, and the bias C8 as ηE grows.

Run ``python simulations/frozen_stage.py --preset quick``; results go to ``./results``.
"""

from linattn.experiments import FrozenStageSpec, Grid, InitialSpec, ProblemSpec, Sweep

HETEROGENEOUS = ProblemSpec(value_heterogeneity=1.5, covariate_heterogeneity=0.3)

SWEEP = Sweep(
    name="frozen_stage",
    presets={
        "paper": [
            Grid(
                FrozenStageSpec(rounds=100, local_steps=(1, 2, 3, 5, 10, 20, 50, 100, 200, 400)),
                {
                    "seed": range(10),
                    "problem.value_heterogeneity": [0.0, 0.75, 1.5],
                    "problem.covariate_heterogeneity": [0.0, 0.3],
                },
            ),
            Grid(
                FrozenStageSpec(
                    problem=HETEROGENEOUS, initial=InitialSpec(kernel="factored", rank=3)
                ),
                {"seed": range(10), "problem.kernel_heterogeneity": [0.0, 0.5]},
            ),
        ],
        "quick": [
            Grid(
                FrozenStageSpec(),
                {
                    "seed": range(3),
                    "problem.value_heterogeneity": [0.0, 1.5],
                    "problem.covariate_heterogeneity": [0.0, 0.3],
                },
            ),
        ],
        "tiny": [
            Grid(
                FrozenStageSpec(
                    problem=HETEROGENEOUS, rounds=10, local_steps=(1, 5), settle_rounds=100
                )
            ),
        ],
    },
)

if __name__ == "__main__":
    from linattn.cli import simulation_main

    simulation_main(SWEEP)
