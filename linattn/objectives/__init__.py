"""The three objectives: joint, kernel profile, value block; reference value, safe steps."""

from linattn.objectives.joint import Joint
from linattn.objectives.profile import KernelProfile
from linattn.objectives.reference import Reference, reference_value
from linattn.objectives.starts import initial_params
from linattn.objectives.steps import safe_step
from linattn.objectives.value import ValueBlock

__all__ = [
    "Joint",
    "KernelProfile",
    "Reference",
    "ValueBlock",
    "initial_params",
    "reference_value",
    "safe_step",
]
