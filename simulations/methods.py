"""All methods on the same clients: synthetic regimes, a deep ReLU model, digits and watch.

Run ``python simulations/methods.py --preset quick``; results go to ``./results``.
"""

from linattn.experiments import Grid, InitialSpec, MethodsSpec, ModelSpec, ProblemSpec, Sweep

REAL = InitialSpec(scale=1.0)
HETEROGENEITY = {
    "problem.value_heterogeneity": [0.0, 0.75, 1.5],
    "problem.covariate_heterogeneity": [0.0, 0.3],
}
SMALL = ProblemSpec(
    num_clients=4, sequences_per_client=16, value_heterogeneity=0.75, covariate_heterogeneity=0.3
)

SWEEP = Sweep(
    name="methods",
    presets={
        "paper": [
            Grid(
                MethodsSpec(rounds=200, local_steps=20, warmup_rounds=40),
                {"seed": range(10), **HETEROGENEITY},
            ),
            Grid(
                MethodsSpec(
                    rounds=200,
                    local_steps=20,
                    warmup_rounds=40,
                    initial=InitialSpec(kernel="factored", rank=3),
                ),
                {"seed": range(10), "problem.kernel_heterogeneity": [0.0, 0.5]},
            ),
            Grid(
                MethodsSpec(deep=True, rounds=150, local_steps=10, local_lr=0.02, warmup_rounds=40),
                {"seed": range(10)},
            ),
            Grid(
                MethodsSpec(
                    rounds=100, local_steps=20, warmup_rounds=25, initial=REAL, step_factor=0.5
                ),
                {"seed": range(10), "data": ["digits", "watch"]},
            ),
        ],
        "quick": [
            Grid(MethodsSpec(rounds=16, warmup_rounds=8, problem=SMALL), {"seed": range(2)}),
            Grid(
                MethodsSpec(deep=True, rounds=6, local_steps=2, warmup_rounds=3, problem=SMALL),
                {"seed": range(2)},
            ),
            Grid(
                MethodsSpec(rounds=6, local_steps=3, warmup_rounds=3, initial=REAL),
                {"seed": range(2), "data": ["digits", "watch"]},
            ),
        ],
        "tiny": [
            Grid(
                MethodsSpec(
                    deep=deep,
                    rounds=4,
                    local_steps=2,
                    warmup_rounds=2,
                    problem=ProblemSpec(num_clients=3, sequences_per_client=6, num_tokens=5, dim=3),
                    model=ModelSpec(inner_dim=2),
                ),
                {"seed": range(2)},
            )
            for deep in (False, True)
        ],
    },
)

if __name__ == "__main__":
    from linattn.cli import simulation_main

    simulation_main(SWEEP)
