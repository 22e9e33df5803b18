"""Experiments: simulations of one file each, running them, and the store of results.

Importing this loads neither xarray nor the compiled code.
"""

from linattn._fields import Count, Fraction, Index, NonNegative, Part, Positive
from linattn.experiments.engine import Report, compute_tasks
from linattn.experiments.simulation import NUMERICS, Grid, Own, Simulation, Spec, Task
from linattn.experiments.store import Result, load_results

__all__ = [
    "NUMERICS",
    "Count",
    "Fraction",
    "Grid",
    "Index",
    "NonNegative",
    "Own",
    "Part",
    "Positive",
    "Report",
    "Result",
    "Simulation",
    "Spec",
    "Task",
    "compute_tasks",
    "load_results",
]
