"""Kinds of fields that validated records share: numbers in ranges, and the base of nested parts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

LARGEST = sys.float_info.max
"""Upper limit of a field that may be any finite number."""

Count = Annotated[int, Meta(ge=1)]
Index = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0, le=LARGEST)]
NonNegative = Annotated[float, Meta(ge=0, le=LARGEST)]
Fraction = Annotated[float, Meta(gt=0, le=1)]


if TYPE_CHECKING:
    # A checker would want every subclass to say again what msgspec lets it inherit.
    class Part(msgspec.Struct):
        """As below."""

else:

    class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
        """A group of fields inside a spec; subclasses inherit that they are frozen and strict."""
