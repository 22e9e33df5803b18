"""The bias of the frozen stage between its bounds as ηE grows, and the rate that it buys.

Run ``python simulations/bounds.py --preset quick``; results go to ``./results``.
"""

from linattn.experiments import BoundsSpec, Grid, Sweep

LEVELS = "problem.value_heterogeneity"
SPREAD = "problem.covariate_heterogeneity"

SWEEP = Sweep(
    name="bounds",
    presets={
        "paper": [Grid(BoundsSpec(), {"seed": range(10), LEVELS: [0.75, 1.5], SPREAD: [0.0, 0.3]})],
        "quick": [Grid(BoundsSpec(), {"seed": range(3), LEVELS: [1.5], SPREAD: [0.0, 0.3]})],
        "tiny": [Grid(BoundsSpec(rounds=2, local_steps=(2, 20)), {LEVELS: [1.5], SPREAD: [0.3]})],
    },
)

if __name__ == "__main__":
    from linattn.cli import simulation_main

    simulation_main(SWEEP)
