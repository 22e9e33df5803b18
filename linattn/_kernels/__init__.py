"""Compiled code: the only folder that imports numba, and only when something in it is called."""


def warm() -> None:
    """Compile (or load from the disk cache) every kernel, on a problem of the smallest size."""
    import numpy as np

    from linattn._kernels import layout, local

    index = np.zeros(0, dtype=np.int64)

    def data(rank_one: bool) -> layout.LocalData:
        return layout.LocalData(
            gram=np.ones((1, 1)),
            columns=np.ones((1, 1)),
            cross=np.ones((1, 1, 1)),
            query=np.ones((1, 1)),
            target=np.ones((1, 1)),
            pair_moments=np.zeros((0, 0, 0)),
            pair_linear=np.zeros((0, 0, 0)),
            moments=np.zeros((0, 0, 0)),
            moment_linear=np.zeros((0, 0, 0)),
            pair=index.reshape(0, 0),
            offsets=np.array([0, 1], dtype=np.int64),
            rank_one=rank_one,
        )

    rule = layout.LocalRule(1.0, 1.0, 0.1, 0.0, np.ones((1, 2)), np.zeros((0, 2)))
    record = np.zeros((0, 1, 2))
    local.local_round(
        data(False),
        layout.LocalShape(1, 1, 1, 0),
        rule,
        np.zeros(1, dtype=np.int64),
        np.ones((1, 2)),
        np.ones(2),
        1,
        True,
        index,
        np.zeros(2, dtype=np.int64),
        data(False),
        record,
        record,
        record,
    )
    ones, value_record = np.ones((1, 1, 1)), np.zeros((0, 1, 1))
    local.value_round(
        ones,
        ones,
        np.ones((1, 1)),
        np.ones(1),
        0.1,
        0.0,
        np.zeros((0, 1)),
        1,
        value_record,
        value_record,
    )
