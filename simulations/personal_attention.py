"""FedTP against local and averaged attention as clients need different kernels.

Run ``python simulations/personal_attention.py --preset quick``; results go to ``./results``.
"""

from linattn.experiments import Grid, PersonalAttentionSpec, ProblemSpec, Sweep

FEW = ProblemSpec(sequences_per_client=8)

SWEEP = Sweep(
    name="personal_attention",
    presets={
        "paper": [
            Grid(
                PersonalAttentionSpec(rounds=200, test_sequences=256, problem=ProblemSpec()),
                {
                    "seed": range(10),
                    "problem.sequences_per_client": [8, 64],
                    "problem.num_clients": [8, 32],
                    "problem.kernel_heterogeneity": [0.0, 0.1, 0.2, 0.5, 1.0],
                },
            ),
        ],
        "quick": [
            Grid(
                PersonalAttentionSpec(rounds=25, problem=FEW),
                {"seed": range(2), "problem.kernel_heterogeneity": [0.0, 0.5, 1.0]},
            ),
        ],
        "tiny": [
            Grid(
                PersonalAttentionSpec(
                    rounds=5,
                    local_steps=2,
                    test_sequences=6,
                    problem=ProblemSpec(num_clients=3, sequences_per_client=6, num_tokens=5, dim=3),
                ),
                {"seed": range(2), "problem.kernel_heterogeneity": [0.0, 0.5]},
            ),
        ],
    },
)

if __name__ == "__main__":
    from linattn.cli import simulation_main

    simulation_main(SWEEP)
