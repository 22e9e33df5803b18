"""FedSQ's premise and promise: gates settle before weights, fixed gates remove gate flips.

Run ``python simulations/gates.py --preset quick``; results go to ``./results``.
"""

from linattn.experiments import GatesSpec, Grid, ModelSpec, ProblemSpec, Sweep

SMALL = ProblemSpec(
    num_clients=4, sequences_per_client=16, value_heterogeneity=0.75, covariate_heterogeneity=0.3
)

SWEEP = Sweep(
    name="gates",
    presets={
        "paper": [
            Grid(
                GatesSpec(rounds=200, local_lr=0.02, pretraining=(0, 5, 20, 50, 100)),
                {"seed": range(10), "problem.value_heterogeneity": [0.0, 0.75]},
            ),
        ],
        "quick": [
            Grid(
                GatesSpec(rounds=16, local_steps=3, problem=SMALL, pretraining=(0, 16)),
                {"seed": range(2)},
            ),
        ],
        "tiny": [
            Grid(
                GatesSpec(
                    rounds=4,
                    local_steps=2,
                    pretraining=(0, 2),
                    model=ModelSpec(inner_dim=2),
                    problem=ProblemSpec(num_clients=3, sequences_per_client=6, num_tokens=5, dim=3),
                ),
                {"seed": range(2)},
            ),
        ],
    },
)

if __name__ == "__main__":
    from linattn.cli import simulation_main

    simulation_main(SWEEP)
