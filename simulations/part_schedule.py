"""FedPart at depth three: order of the groups, number of full rounds, three prices.

Run ``python simulations/part_schedule.py --preset quick``; results go to ``./results``.
"""

from linattn.experiments import Grid, ModelSpec, PartScheduleSpec, ProblemSpec, Sweep

SMALL = ProblemSpec(
    num_clients=4, sequences_per_client=12, value_heterogeneity=0.75, covariate_heterogeneity=0.3
)

SWEEP = Sweep(
    name="part_schedule",
    presets={
        "paper": [
            Grid(
                PartScheduleSpec(rounds=195, local_lr=0.02, initial_rounds=(5, 0, 60)),
                {
                    "seed": range(10),
                    "problem.value_heterogeneity": [0.0, 0.75],
                    "groups": ["layer", "block"],
                },
            ),
        ],
        "quick": [
            Grid(
                PartScheduleSpec(
                    rounds=26,
                    local_steps=2,
                    problem=SMALL,
                    initial_rounds=(5, 0, 10),
                ),
                {"seed": range(2)},
            ),
        ],
        "tiny": [
            Grid(
                PartScheduleSpec(
                    rounds=6,
                    local_steps=2,
                    rounds_per_group=1,
                    initial_rounds=(2, 0),
                    model=ModelSpec(num_layers=3, inner_dim=2),
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
