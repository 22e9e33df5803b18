"""Compiled code: the only folder that imports numba, and only when something in it is called."""

PARTS = 2
"""Into which `warm` can be cut for processes side by side; either takes about half of the time."""


def warm(part: int | None = None) -> None:
    """Compile (or load from the disk cache) every kernel, on a problem of the smallest size.

    Parameters
    ----------
    part : int, optional
        0 for local steps of all blocks, 1 for all else; default both.
    """
    import numpy as np

    from linattn._kernels.layout import QUERIES, Client, Data, Ridges, Shape
    from linattn._kernels.local import Batches, Course, Record, Rule, Start, train, train_values
    from linattn._kernels.second_order import products, systems
    from linattn._kernels.sequences import Wanted
    from linattn._kernels.solve import solve

    index, first = np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64)
    one, row, cube, pair = np.ones(1), np.ones((1, 2)), np.ones((1, 1, 1)), index.reshape(0, 0)
    empty, none, square = np.zeros((1, 0)), np.zeros((0, 0, 0)), np.ones((1, 1))
    offsets = np.array([0, 1])
    data = Data(QUERIES, one, one, cube, one, one, empty, empty, 0, pair, one, offsets)
    room = Client(QUERIES, 0, one, one, cube, one, one, empty[0], empty[0], pair, 0.0)
    shape, ridges, wanted = Shape(1, 1, 1, 0), Ridges(1.0, 1.0), Wanted(True, True, True)
    start, record = Start(row, row.copy(), one.copy(), False), Record(none, none, none)
    rule, batches = Rule(0.1, 0.0, row[0], row, row[:0]), Batches(index, offsets, room)
    course = Course(one, offsets, np.ones((2, 2)), one.copy(), row.copy(), row.copy(), row[:0])
    if part != 1:
        train(data, shape, ridges, wanted, first, start, rule, 1, batches, record, course)
    if part == 0:
        return
    products(data, shape, first, row, row, row.copy())
    systems(data, shape, first, one, first, square, 1, 0, cube.copy(), cube.copy())
    solve(cube.copy(), cube, 1.0, cube.copy(), cube.copy())
    rule = Rule(0.1, 0.0, one, square, square[:0])
    course = Course(
        one, offsets, np.ones((2, 1)), one.copy(), square.copy(), row.copy(), square[:0]
    )
    train_values(cube, cube, first, square, rule, 1, record, course)
