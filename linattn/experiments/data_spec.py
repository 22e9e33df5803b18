"""Which data set a simulation federates, shipped or the user's own, and how."""

from __future__ import annotations

from msgspec.structs import force_setattr

from linattn._checks import one_of
from linattn._fields import Positive
from linattn.data.datasets import load_dataset
from linattn.data.federated_data import FederatedData
from linattn.data.items import DEALT
from linattn.data.splits import CLASSIFIED, DATASETS, check_alpha, check_split, federated_split
from linattn.experiments.own import own_file
from linattn.experiments.simulation import Own, Spec

OWN_DATA = "own"


class DataSpec(Spec):
    """A data set with classes, and how it is dealt to clients.

    Attributes
    ----------
    data : str
        A shipped set.
    dataset : str
        A set of the user's own in its place, ``PATH.npz`` as `linattn.save_dataset` writes it: its
        items are sequences (`items_split`).
    split : str
        One of the set's; of an own set "dirichlet", "iid" or the name of a group. Splits that only
        a shipped set has are "iid" for an own one.
    alpha : float or None
        Concentration of the Dirichlet split.
    """

    data: str = "digits"
    dataset: Own = ""
    split: str = "dirichlet"
    alpha: Positive | None = None

    def __post_init__(self) -> None:
        if not self.dataset:
            check_split(one_of("data", self.data, CLASSIFIED), self.split, alpha=self.alpha)
            return
        if self.data != OWN_DATA:
            shipped = DATASETS[one_of("data", self.data, CLASSIFIED)].names
            if self.split in shipped and self.split not in DEALT:
                force_setattr(self, "split", "iid")
            force_setattr(self, "data", OWN_DATA)
        check_alpha(self.split, self.alpha)

    @property
    def work(self) -> int:
        """About Σ n_i d² of the training sequences; that of the digits for a set of one's own."""
        return DATASETS["digits" if self.dataset else self.data].work

    def federated(self) -> FederatedData:
        """Return what every client trains on and is tested on."""
        held = load_dataset(own_file(self.dataset)[0]) if self.dataset else self.data
        return federated_split(held, self.split, alpha=self.alpha, seed=self.seed)
