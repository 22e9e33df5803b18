"""Selective training along λ: E1 (blocks nobody trains) against E2 (blocks only some train).

Run ``python simulations/selection.py --preset quick``; results go to ``./results``.
"""

from linattn.experiments import Grid, ModelSpec, ProblemSpec, SelectionSpec, Sweep

SMALL = ProblemSpec(
    num_clients=4, sequences_per_client=16, value_heterogeneity=0.75, covariate_heterogeneity=0.3
)

SWEEP = Sweep(
    name="selection",
    presets={
        "paper": [
            Grid(
                SelectionSpec(
                    rounds=100,
                    local_lr=0.02,
                    consistency=(0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
                ),
                {
                    "seed": range(10),
                    "budget": [1, 2],
                    "problem.value_heterogeneity": [0.0, 0.75, 1.5],
                },
            ),
        ],
        "quick": [
            Grid(
                SelectionSpec(
                    rounds=6,
                    local_steps=4,
                    problem=SMALL,
                    consistency=(0.0, 0.1, 0.3, 10.0),
                ),
                {"seed": range(2)},
            ),
        ],
        "tiny": [
            Grid(
                SelectionSpec(
                    rounds=3,
                    local_steps=2,
                    consistency=(0.0, 1.0),
                    model=ModelSpec(inner_dim=2),
                    problem=ProblemSpec(
                        num_clients=3,
                        sequences_per_client=6,
                        num_tokens=5,
                        dim=3,
                        value_heterogeneity=0.75,
                    ),
                ),
                {"seed": range(2)},
            ),
        ],
    },
)

if __name__ == "__main__":
    from linattn.cli import simulation_main

    simulation_main(SWEEP)
