"""How drift, bias and mismatch grow with the step size and with the local steps.

Run ``python simulations/orders.py --preset quick``; results go to ``./results``.
"""

from linattn.experiments import Grid, InitialSpec, OrdersSpec, ProblemSpec, Sweep

SPEC = OrdersSpec(
    problem=ProblemSpec(value_heterogeneity=0.75, covariate_heterogeneity=0.3),
    initial=InitialSpec(kernel="factored", rank=3),
)

SWEEP = Sweep(
    name="orders",
    presets={
        "paper": [
            Grid(SPEC, {"seed": range(10), "problem.kernel_heterogeneity": [0.0, 0.5]}),
        ],
        "quick": [Grid(SPEC, {"seed": range(3)})],
        "tiny": [
            Grid(
                OrdersSpec(
                    problem=SPEC.problem, initial=SPEC.initial, rounds=2, halvings=4,
                    local_steps=(2, 4, 8),
                )
            )
        ],
    },
)  # fmt: skip

if __name__ == "__main__":
    from linattn.cli import simulation_main

    simulation_main(SWEEP)
