"""Deep linear attention: the model of several layers and its exact gradients."""

from linattn.deep.model import DeepAttention
from linattn.deep.passes import Trace

__all__ = ["DeepAttention", "Trace"]
