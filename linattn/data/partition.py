"""Who holds which item: splits of a labelled set over clients, and train/test splits inside them.

Every function returns index arrays and touches no data. Draws come from named streams, so that a
split depends on the seed and on what it splits, never on a method.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from linattn._checks import one_of, positive_int, real, refuse_masked
from linattn._typing import AnyArray, IntArray
from linattn.streams import stream

SCHEMES = ("dirichlet", "iid", "natural")
# Beyond this the gamma draws behind a Dirichlet draw overflow and all shares come out as zero.
_LARGEST_ALPHA = 1e100
# A larger test part would leave too little to train on to mean anything.
_LARGEST_FRACTION = 0.9


def partition(
    labels: ArrayLike,
    scheme: str,
    *,
    num_clients: int | None = None,
    alpha: float | None = None,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> list[IntArray]:
    """Index arrays of the clients: every item in exactly one, none of them empty.

    - ``"dirichlet"``: for every class k its items are shuffled and cut into consecutive pieces of
      sizes in proportion to π_k ~ Dirichlet(α, …, α) over the clients (cut points rounded to whole
      items). Small α: few classes per client. Large α: every client has the class mix of the set.
      A client left empty receives one item, the last that was dealt to the client that holds most
      (first of them on ties); empty clients are served in order. Splits without an empty client
      are therefore plain Dirichlet splits.
    - ``"iid"``: one shuffle, cut into pieces whose sizes differ by at most one.
    - ``"natural"``: one client per distinct value of ``groups``, in sorted order of the values.

    Parameters
    ----------
    labels : array of shape (S,)
        Class of every item, integers or strings; "iid" and "natural" use its length only.
    scheme : "dirichlet" | "iid" | "natural"
    num_clients : int
        Number of clients C, 1 ≤ C ≤ S ("dirichlet", "iid").
    alpha : float
        Dirichlet concentration, 0 < α ≤ 1e100, no unit ("dirichlet").
    groups : array of shape (S,)
        Owner of every item, integers or strings ("natural").
    seed : int
        Streams (seed, "partition_items", k) and (seed, "partition_shares", k) for the k-th class,
        (seed, "partition_items") for "iid". The order of items within a class depends neither on
        α nor on C, so that splits of several α are paired.

    Returns
    -------
    list of int64 arrays
        C ascending, disjoint index arrays whose union is 0..S-1.

    Raises
    ------
    ValueError
        If an argument is missing, out of range, or belongs to another scheme.

    Notes
    -----
    Source: label-skew splits by a Dirichlet prior as in Hsu, Qi and Brown (arXiv 1909.06335);
    the rule for empty clients is this project's.
    Cost: O(S log S).

    Examples
    --------
    >>> [part.tolist() for part in partition([0, 0, 1, 1], "natural", groups=["b", "a", "b", "b"])]
    [[1], [0, 2, 3]]
    """
    classes = _one_dimensional("labels", labels)
    one_of("scheme", scheme, SCHEMES)
    positive_int("seed", seed, minimum=0, maximum=None)
    where = f"in the {scheme} scheme"
    if scheme == "natural":
        refuse_given(where, num_clients=num_clients, alpha=alpha)
        return _natural(classes.size, groups)
    refuse_given(where, groups=groups)
    count = positive_int("num_clients", num_clients)
    if count > classes.size:
        raise ValueError(
            f"num_clients must be <= {classes.size}, the number of items, so that no client is "
            f"empty; got {count}."
        )
    if scheme == "iid":
        refuse_given(where, alpha=alpha)
        order = stream(seed, "partition_items").permutation(classes.size)
        return [_ascending(part) for part in np.array_split(order, count)]
    concentration = real("alpha", alpha, above=0.0, maximum=_LARGEST_ALPHA)
    return _dirichlet(classes, count, concentration, seed)


def stratified_split(
    labels: ArrayLike, test_fraction: float, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Split items into train and test so that both have nearly the same class mix.

    The test part has t = min(⌊fraction·S + ½⌋, S − 1) items, so that training is never empty. Class
    k gives ⌊t·S_k/S⌋ of them; the rest go to the largest remainders, ties broken at random. Within
    a class the items are drawn at random without replacement.

    Parameters
    ----------
    labels : array of shape (S,)
        Class of every item, integers or strings, S ≥ 1.
    test_fraction : float
        Share of the items that are tested, in [0, 0.9].
    rng : Generator
        Source of the draws, a named stream.

    Returns
    -------
    train, test : int64 arrays
        Ascending, disjoint index arrays whose union is 0..S-1.

    Raises
    ------
    ValueError
        If there is no item or the fraction is outside [0, 0.9].

    Notes
    -----
    Cost: O(S log S).

    Examples
    --------
    >>> train, test = stratified_split([0, 0, 0, 0, 1, 1, 1, 1], 0.25, np.random.default_rng(0))
    >>> len(train), len(test), (test < 4).sum().item()
    (6, 2, 1)
    """
    classes = _one_dimensional("labels", labels)
    fraction = real("test_fraction", test_fraction, minimum=0.0, maximum=_LARGEST_FRACTION)
    _, member, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    total = min(int(fraction * classes.size + 0.5), classes.size - 1)
    quota = total * sizes / classes.size
    take = np.floor(quota).astype(np.int64)
    # lexsort: the last key leads, so remainders decide and random keys break their ties.
    by_remainder = np.lexsort((rng.random(sizes.size), take - quota))
    take[by_remainder[: total - int(take.sum())]] += 1
    test = [
        rng.permutation(np.flatnonzero(member == k))[:count]
        for k, count in enumerate(take.tolist())
    ]
    tested = _ascending(np.concatenate(test))
    return _ascending(np.setdiff1d(np.arange(classes.size), tested)), tested


def held_out(
    labels: AnyArray, owners: Sequence[IntArray], *, test_fraction: float, seed: int
) -> list[tuple[IntArray, IntArray]]:
    """The items of every client that are trained on and those that are tested, stratified.

    Client i draws from the stream (seed, "test_items", i).
    """
    drawn = (
        stratified_split(labels[own], test_fraction, stream(seed, "test_items", i))
        for i, own in enumerate(owners)
    )
    return [(own[train], own[test]) for own, (train, test) in zip(owners, drawn, strict=True)]


def _natural(num_items: int, groups: ArrayLike | None) -> list[IntArray]:
    if groups is None:
        raise ValueError("groups must hold one group per item in the natural scheme, got None.")
    owners = _one_dimensional("groups", groups)
    if owners.size != num_items:
        raise ValueError(
            f"groups must hold one entry for each of the {num_items} labels, got {owners.size}."
        )
    return [_ascending(np.flatnonzero(owners == owner)) for owner in np.unique(owners)]


def _dirichlet(classes: AnyArray, count: int, alpha: float, seed: int) -> list[IntArray]:
    dealt: list[list[int]] = [[] for _ in range(count)]
    for k, label in enumerate(np.unique(classes)):
        items = stream(seed, "partition_items", k).permutation(np.flatnonzero(classes == label))
        shares = stream(seed, "partition_shares", k).dirichlet(np.full(count, alpha))
        cuts = np.rint(np.cumsum(shares)[:-1] * items.size).astype(np.int64)
        for owner, piece in zip(dealt, np.split(items, cuts), strict=True):
            owner.extend(piece.tolist())
    for owner in dealt:
        if not owner:
            owner.append(max(dealt, key=len).pop())
    return [_ascending(owner) for owner in dealt]


def _ascending(items: AnyArray | Sequence[int]) -> IntArray:
    return np.sort(np.asarray(items, dtype=np.int64))


def _one_dimensional(name: str, values: ArrayLike) -> AnyArray:
    refuse_masked(name, values)
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iuU":
        raise ValueError(
            f"{name} must be a non-empty one-dimensional list of integers or strings, "
            f"got shape {array.shape} and dtype {array.dtype}."
        )
    return array


def refuse_given(where: str, **given: object) -> None:
    """Refuse arguments that have no meaning where they are given."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name} must be left out {where}, got {value!r}.")
