"""Every bound of the claim table on random instances: how tight it is, and how often refused.

Run ``python simulations/tightness.py --preset quick``; results go to ``./results``.
"""

from linattn.experiments import Grid, Sweep, TightnessSpec

SWEEP = Sweep(
    name="tightness",
    presets={
        "paper": [Grid(TightnessSpec(count=50), {"seed": range(10)})],
        "quick": [Grid(TightnessSpec(count=6), {"seed": range(3)})],
        "tiny": [Grid(TightnessSpec(count=2))],
    },
)

if __name__ == "__main__":
    from linattn.cli import simulation_main

    simulation_main(SWEEP)
