"""When to freeze without knowing the answer: the rules C13 against the best warm-up length.

Run ``python simulations/freeze_rule.py --preset quick``; results go to ``./results``.
"""

from linattn.experiments import FreezeRuleSpec, Grid, InitialSpec, ProblemSpec, Sweep

HETEROGENEOUS = ProblemSpec(value_heterogeneity=0.75, covariate_heterogeneity=0.3)

SWEEP = Sweep(
    name="freeze_rule",
    presets={
        "paper": [
            Grid(
                FreezeRuleSpec(rounds=400, local_steps=(1, 10, 50)),
                {
                    "seed": range(10),
                    "problem.value_heterogeneity": [0.0, 0.75, 1.5],
                    "problem.covariate_heterogeneity": [0.0, 0.3],
                },
            ),
            Grid(
                FreezeRuleSpec(
                    rounds=400,
                    local_steps=(1, 10, 50),
                    problem=HETEROGENEOUS,
                    initial=InitialSpec(kernel="factored", rank=3),
                ),
                {"seed": range(10), "problem.kernel_heterogeneity": [0.0, 0.5]},
            ),
        ],
        "quick": [
            Grid(
                FreezeRuleSpec(rounds=100, local_steps=(1, 20)),
                {
                    "seed": range(3),
                    "problem.value_heterogeneity": [0.0, 1.5],
                    "problem.covariate_heterogeneity": [0.0, 0.3],
                },
            ),
        ],
        "tiny": [
            Grid(FreezeRuleSpec(rounds=10, local_steps=(1, 5), problem=HETEROGENEOUS)),
        ],
    },
)

if __name__ == "__main__":
    from linattn.cli import simulation_main

    simulation_main(SWEEP)
