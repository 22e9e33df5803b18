"""FedFrozen with each second stage: averaging, control variates, one exact round.

Run ``python simulations/second_stage.py --preset quick``; results go to ``./results``.
"""

from linattn.experiments import Grid, InitialSpec, ProblemSpec, SecondStageSpec, Sweep

REAL = InitialSpec(scale=1.0)
SMALL = ProblemSpec(
    num_clients=4, sequences_per_client=16, value_heterogeneity=0.75, covariate_heterogeneity=0.3
)

SWEEP = Sweep(
    name="second_stage",
    presets={
        "paper": [
            Grid(
                SecondStageSpec(
                    rounds=400, local_steps=20, warmup_lengths=(0, 5, 10, 20, 50, 100, 200)
                ),
                {
                    "seed": range(10),
                    "problem.value_heterogeneity": [0.0, 0.75, 1.5],
                    "problem.covariate_heterogeneity": [0.0, 0.3],
                },
            ),
            Grid(
                SecondStageSpec(
                    rounds=400,
                    local_steps=20,
                    warmup_lengths=(0, 5, 10, 20, 50, 100, 200),
                    initial=InitialSpec(kernel="factored", rank=3),
                ),
                {"seed": range(10), "problem.kernel_heterogeneity": [0.0, 0.5]},
            ),
            Grid(
                SecondStageSpec(
                    rounds=200,
                    local_steps=20,
                    warmup_lengths=(0, 5, 10, 20, 50, 100),
                    initial=REAL,
                    step_factor=0.5,
                ),
                {"seed": range(10), "data": ["digits", "watch"]},
            ),
        ],
        "quick": [
            Grid(
                SecondStageSpec(
                    rounds=40, local_steps=20, warmup_lengths=(0, 5, 20), problem=SMALL
                ),
                {"seed": range(2)},
            ),
            Grid(
                SecondStageSpec(
                    rounds=16,
                    warmup_lengths=(0, 8),
                    initial=REAL,
                    reference_iterations=30,
                ),
                {"seed": range(2), "data": ["digits", "watch"]},
            ),
        ],
        "tiny": [
            Grid(
                SecondStageSpec(
                    rounds=6,
                    local_steps=3,
                    warmup_lengths=(0, 2),
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
