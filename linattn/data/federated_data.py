"""A data set dealt to clients: what they train on and what is tested."""

from dataclasses import dataclass

from linattn._typing import AnyArray, Array, IntArray
from linattn.data.datasets import Dataset
from linattn.data.tokens import ClientData


@dataclass(frozen=True, eq=False, repr=False)
class FederatedData:
    """What the training clients hold, and what there is to test on (read-only).

    Attributes
    ----------
    description : str
        The data set and how it was split.
    train : list of (tokens (S_i, n, d), targets (S_i, m)), or of (tokens, targets, queries)
        One per client, as `problem_from_tokens` takes them: tokens are a list of arrays (n_s, d)
        where sequences differ in length; targets of classes are one-hot.
    test : (tokens (S, n, d), labels (S,)), or (tokens, targets, queries)
        All test sequences, in the order of the clients. A regression has targets (S, 1, m) and no
        labels; its loss, not accuracy, is measured.
    client_tests : list of the same, or None
        The same sequences by client, possibly none for a client; None where test sequences belong
        to no training client.
    class_names, client_names : tuple of str
        What the m outputs and the clients stand for.
    train_items : list of IntArray
        Item of the data set that each training sequence was cut from.
    test_items : IntArray
        The same for ``test``.
    channel_mean, channel_std : Array of shape (c,), or None
        What channels were standardized with (training items only).
    readout : str
        Which readout the tokens are made for.
    """

    description: str
    train: list[ClientData]
    test: ClientData
    client_tests: list[ClientData] | None
    class_names: tuple[str, ...]
    client_names: tuple[str, ...]
    train_items: list[IntArray]
    test_items: IntArray
    channel_mean: Array | None = None
    channel_std: Array | None = None
    readout: str = "mean"

    def __post_init__(self) -> None:
        for part in (*self.train, self.test, *(self.client_tests or ())):
            for arrays in part:
                for array in arrays if isinstance(arrays, list) else [arrays]:
                    array.flags.writeable = False

    def __repr__(self) -> str:
        sizes = [len(part[0]) for part in self.train]
        lengths = sorted({len(tokens) for part in self.train for tokens in part[0]})
        num_tokens = " to ".join(str(n) for n in dict.fromkeys((lengths[0], lengths[-1])))
        dim = self.train[0][0][0].shape[1]
        return (
            f"FederatedData({self.description}: {len(sizes)} clients with {min(sizes)} to "
            f"{max(sizes)} training sequences ({sum(sizes)}), {len(self.test[0])} test sequences, "
            f"n = {num_tokens}, d = {dim}, m = {len(self.class_names)})"
        )


def group_of(data: Dataset, name: str) -> AnyArray:
    """Return a grouping of a data set.

    Raises
    ------
    ValueError
        If it has none of this name.
    """
    if name not in data.groups:
        raise ValueError(f"dataset must have the group {name!r}, got {sorted(data.groups)}.")
    return data.groups[name]
