"""FedPart's claim: update norms jump after averaging because layers do not match.

The problem is that of the other simulations with more and smaller clients. Run
``python simulations/update_jump.py --preset quick``; results go to ``./results``.
"""

from linattn.experiments import Grid, InitialSpec, ProblemSpec, Sweep, UpdateJumpSpec

IID = ProblemSpec(num_clients=10, num_tokens=8, sequences_per_client=32)
HETEROGENEOUS = ProblemSpec(
    num_clients=10,
    num_tokens=8,
    sequences_per_client=32,
    value_heterogeneity=1.5,
    covariate_heterogeneity=0.3,
)

SWEEP = Sweep(
    name="update_jump",
    presets={
        "paper": [
            Grid(
                UpdateJumpSpec(
                    rounds=90, local_steps=20, local_lr=0.02, problem=problem, initial=initial
                ),
                {"seed": range(10)},
            )
            for problem in (IID, HETEROGENEOUS)
            for initial in (InitialSpec(), InitialSpec(kernel="factored", rank=3))
        ],
        "quick": [
            Grid(
                UpdateJumpSpec(rounds=20, local_steps=20, local_lr=0.02, problem=problem),
                {"seed": range(2)},
            )
            for problem in (IID, HETEROGENEOUS)
        ],
        "tiny": [
            Grid(
                UpdateJumpSpec(
                    rounds=6,
                    local_steps=3,
                    problem=ProblemSpec(
                        num_clients=3,
                        sequences_per_client=6,
                        num_tokens=5,
                        dim=3,
                        value_heterogeneity=value,
                    ),
                ),
                {"seed": range(2)},
            )
            for value in (0.0, 1.5)
        ],
    },
)

if __name__ == "__main__":
    from linattn.cli import simulation_main

    simulation_main(SWEEP)
