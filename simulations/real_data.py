"""FedAvg and FedFrozen on two real data sets: digits by form sheet, watch recordings by subject.

Every run has all warm-up lengths and numbers of local steps of one split, start and number of
heads. Run ``python simulations/real_data.py --preset quick``; results go to ``./results``.
"""

from collections.abc import Mapping
from typing import Any

from linattn.experiments import Grid, InitialSpec, RealDataSpec, Sweep

SPLITS: list[dict[str, Any]] = [
    {"data": "digits", "split": "sheets"},
    {"data": "digits", "split": "dirichlet", "alpha": 0.05},
    {"data": "digits", "split": "dirichlet", "alpha": 0.5},
    {"data": "digits", "split": "iid"},
    {"data": "watch", "split": "sides"},
    {"data": "watch", "split": "subjects"},
]


def start(num_heads: int) -> InitialSpec:
    """Return the start: kernel entries N(0, 1/d), V = 0."""
    return InitialSpec(num_heads=num_heads, scale=1.0)


def grid(split: Mapping[str, Any], *, heads: int, seeds: range, **fields: Any) -> Grid:
    """Return the runs of one split and number of heads over seeds."""
    return Grid(RealDataSpec(**split, initial=start(heads), **fields), {"seed": seeds})


def paper(split: Mapping[str, Any], *, heads: int, **fields: Any) -> Grid:
    """Return the runs of the paper preset of one split and number of heads."""
    return grid(
        split,
        heads=heads,
        seeds=range(5),
        rounds=300,
        local_steps=(1, 5, 20),
        warmup_lengths=(0, 3, 10, 30, 60, 100, 150, 200, 250, 300),
        # The bound C15 takes seconds on the watch recordings and minutes on the digits.
        reference="multi_start" if split["data"] == "watch" else "descent",
        reference_iterations=1000,
        **fields,
    )


SWEEP = Sweep(
    name="real_data",
    presets={
        "paper": [
            *(paper(split, heads=heads) for split in SPLITS for heads in (1, 4)),
            # Freezing in the middle of the warm-up can be unstable at a step that FedAvg survives.
            *(paper(SPLITS[k], heads=1, frozen_lr="safe") for k in (1, 3)),
        ],
        "quick": [
            grid(
                split,
                heads=1,
                seeds=range(3),
                rounds=100,
                local_steps=(1, 20),
                warmup_lengths=(0, 3, 10, 30, 60, 100),
            )
            for split in (SPLITS[1], SPLITS[4])
        ],
        "tiny": [
            grid(
                split,
                heads=1,
                seeds=range(1),
                rounds=20,
                local_steps=(1, 5),
                warmup_lengths=(0, 2, 5, 10, 20),
            )
            for split in (SPLITS[1], SPLITS[4])
        ],
    },
)

if __name__ == "__main__":
    from linattn.cli import simulation_main

    simulation_main(SWEEP)
