"""Uploads of simulated clients: kept where asked, in few files, and solved again to the last bit without some."""

import json
import os
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

from clients.app import app as client_app
from fedcof import ClassMeans, UserError, class_means
from fedcof.covariance import blocks
from fedcof.data.precomputed import shared_features
from fedcof.methods import fedcof as fedcof_method
from fedcof.run.config import RunConfig
from fedcof.run.results import append_result, load_results
from fedcof.wire.encoding import decode_class_means, encode_class_means
from server import keeping, resolving, row_cache
from server.corrected import corrected
from server.federation import Federation
from server.keeping import store_of
from server.kept_files import read_noted
from server.one_shot import OneShotStrategy
from server.resolving import solve_again, solved_from
from server.run import execute
from server.run_strategy import strategy_of
from server.selection import Selection, moment
from simulations.forgetting import same_bits
from simulations.report.seed_averages import averages_over_seeds
from tests.server.in_memory_grid import InMemoryGrid

CLIENTS, CLASSES, DIM = 12, 4, 8
FLOAT32 = {"upload": "given", "encoding": "float32", "groups": 3}
CODED = {"upload": "given", "encoding": "coded", "groups": 3}


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Features of four classes that overlap."""
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "features"
    folder.mkdir()
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CLASSES, DIM)) * 1.2
    for split, count in (("train", 480), ("test", 200)):
        labels = np.arange(count) % CLASSES
        features = centres[labels] + generator.standard_normal((count, DIM)) * (1 + np.arange(DIM) / 4)
        np.save(folder / f"{split}_features.npy", features.astype(np.float32))
        np.save(folder / f"{split}_labels.npy", labels)
    return f"features:{folder}"


def config_of(dataset, **values):
    settings = {"num_clients": CLIENTS, "partition": "iid", "keep_uploads": True, "quorum": 0.5}
    return RunConfig(dataset=dataset, **{**settings, **values})


def run(config, folder, failing=()):
    """Execute a run; clients that fail are as if there never had been any."""
    grid = InMemoryGrid(client_app, CLIENTS, run_config=config.to_mapping(), failing=failing)
    result = execute(Federation(grid, CLIENTS), config, folder, "")
    append_result(folder, result)
    return result


def head_in(folder):
    return load_file(folder / "head.safetensors")


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert torch.equal(array, other[name]), name


FORMS = [pytest.param(FLOAT32, id="float32"), pytest.param(CODED, id="coded"), pytest.param({}, id="best")]
SOLVED = [{"head": "ridge"}, {"head": "ridge", "estimator": "pooled"}, {}]


@pytest.fixture
def few_rows_a_block(monkeypatch):
    """Blocks end within uploads, and the pooled sum lets go of rows as it goes on."""
    for module in (blocks, fedcof_method):
        monkeypatch.setattr(module, "ROWS_PER_BLOCK", 50)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("solved", SOLVED)
def test_without_a_client_it_is_the_federation_that_never_had_it(
    dataset, tmp_path, monkeypatch, few_rows_a_block, form, solved
):
    config = config_of(dataset, **form, **solved)
    run(config, tmp_path / "all")
    run(config.replaced(keep_uploads=False), tmp_path / "never", failing=[3])
    solve_again(tmp_path / "all", {}, "everybody")
    assert_same_bits(head_in(tmp_path / "all" / "everybody"), head_in(tmp_path / "all"))
    for fewest in (10**6, 1, 1):
        # From its own files, then through decoded rows, and then through those that are there.
        monkeypatch.setattr(resolving, "FEWEST_UPLOADS", fewest)
        again = solve_again(tmp_path / "all", {}, "without", Selection(without=("3",)))
        assert_same_bits(head_in(tmp_path / "all" / "without"), head_in(tmp_path / "never"))
    assert (again.clients, again.without) == (CLIENTS - 1, {"3": "named by --without"})
    assert again.accuracy is not None
    (kept,) = (tmp_path / "all" / "uploads").glob("*")
    assert len(list(kept.glob("pack-*"))) == 1


def test_nothing_is_kept_unless_asked(dataset, tmp_path):
    run(config_of(dataset, keep_uploads=False), tmp_path)
    assert not (tmp_path / "uploads").exists()
    with pytest.raises(UserError, match="keep-uploads=true"):
        solve_again(tmp_path, {}, "again")


def test_clients_are_in_the_order_of_their_numbers_over_all_packs(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "CLIENTS_PER_PACK", 5)
    config = config_of(dataset)
    run(config, tmp_path)
    store = store_of(tmp_path, config)
    assert store.names() == [str(number) for number in range(CLIENTS)]
    assert [len(read_noted(path)) for path in sorted(store.folder.glob("pack-*"))] == [5, 5, 2]
    before = {name: store.read(name) for name in store.names()}
    store.remove("7")
    assert store.read("7") is None
    for name in store.names():
        assert store.read(name).tag == before[name].tag
        for key, array in before[name].arrays.items():
            assert np.array_equal(store.read(name).arrays[key], array)
    # Asked again from the start, nothing of before is left.
    run(config, tmp_path)
    assert store.names() == [str(number) for number in range(CLIENTS)]


def replaced_config(folder, **values):
    """Change what the folder says that its uploads were asked with."""
    (path,) = folder.glob("uploads/*/run-config.json")
    kept = json.loads(path.read_text())
    path.write_text(json.dumps(RunConfig.from_mapping(kept).replaced(**values).to_mapping()))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("transform", "because what was done to its features is 'power', and in the run 'l2'"),
        ("backbone", "because it was made with another backbone"),
        ("classes", "because it is of another class list than the run's"),
        ("settings", "because it was kept in the folder class-means-"),
        ("damage", "because"),
    ],
)
@pytest.mark.parametrize("fewest", [1, 10**6])
def test_nothing_is_read_back_into_a_run_of_another_kind(dataset, tmp_path, monkeypatch, change, sentence, fewest):
    monkeypatch.setattr(resolving, "FEWEST_UPLOADS", fewest)
    features = tmp_path / "features"
    run(config_of(dataset), tmp_path / "run")
    solve_again(tmp_path / "run", {}, "again")
    if change == "transform":
        replaced_config(tmp_path / "run", feature_transform="l2")
    elif change == "backbone":
        np.save(features / "train_features.npy", 2 * np.load(features / "train_features.npy"))
    elif change == "classes":
        (features / "classes.txt").write_text("a\nb\nc\nd\n")
    elif change == "settings":
        (kept,) = (tmp_path / "run" / "uploads").glob("*")
        kept.rename(kept.with_name("class-means-0123abcd"))
    else:
        (pack,) = tmp_path.glob("run/uploads/*/pack-*")
        pack.write_bytes(pack.read_bytes()[:100])
        sentence = "is damaged"
    shared_features.cache_clear()
    with pytest.raises(UserError, match=sentence):
        solve_again(tmp_path / "run", {}, "again")


def test_decoded_rows_are_never_believed_before_the_store(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(resolving, "FEWEST_UPLOADS", 1)
    config = config_of(dataset)
    run(config, tmp_path)
    store = store_of(tmp_path, config)
    plain = solved_from(store, cached=False).classifier
    decoded = []

    def counting(self, sent):
        decoded.append(sent)
        return own(self, sent)

    own = OneShotStrategy.read_kept
    monkeypatch.setattr(OneShotStrategy, "read_kept", counting)
    for expected in (CLIENTS, 0):
        assert same_bits(solved_from(store).classifier, plain)
        assert len(decoded) == expected
        decoded.clear()
    # One more, and one that is replaced.
    sent = store.read("5")
    store.keep("99", sent)
    assert solved_from(store).uploads.keys() == {*map(str, range(CLIENTS)), "99"}
    assert len(decoded) == 1
    store.keep("99", store.read("6"))
    again = solved_from(store)
    assert len(decoded) == 2
    assert torch.equal(again.uploads["99"].counts, again.uploads["6"].counts)
    assert torch.equal(again.uploads["99"].rows(slice(0, 1)), again.uploads["6"].rows(slice(0, 1)))
    store.remove("99")
    assert same_bits(solved_from(store).classifier, plain)
    for path in (store.folder / "rows").glob("segment-*"):
        path.write_bytes(path.read_bytes()[:200])
    assert same_bits(solved_from(store).classifier, plain)


def test_many_segments_are_put_together(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(resolving, "FEWEST_UPLOADS", 1)
    monkeypatch.setattr(row_cache, "MOST_SEGMENTS", 3)
    config = config_of(dataset)
    run(config, tmp_path)
    store = store_of(tmp_path, config)
    for number in range(CLIENTS, CLIENTS + 7):
        store.keep(str(number), store.read("0"))
        assert same_bits(solved_from(store).classifier, solved_from(store, cached=False).classifier)
        assert len(list((store.folder / "rows").glob("segment-*"))) <= 3


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8", "int4", "coded"])
def test_what_a_row_decodes_to_does_not_depend_on_the_rows_beside_it(encoding):
    """On which it rests that rows may be decoded once."""
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        features, labels = torch.randn(120, 37, generator=generator), torch.arange(120) % 7
        means = class_means(features, labels, 4, generator)
        arrays = encode_class_means(means, encoding, seed, 0.3 if encoding == "coded" else None)
        rows = decode_class_means(arrays)
        whole = rows.rows(slice(0, rows.num_rows))
        for start in range(0, rows.num_rows, 5):
            for stop in {start + 1, min(start + 4, rows.num_rows), rows.num_rows}:
                assert torch.equal(rows.rows(slice(start, stop)), whole[start:stop])


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("2026-03-31", "2026-03-31T23:59:59.999999+00:00"),
        ("2026-03-31+02:00", "2026-03-31T21:59:59.999999+00:00"),
        ("2026-03-31T18:00", "2026-03-31T18:00:00+00:00"),
        ("2026-03-31T18:00+02:00", "2026-03-31T16:00:00+00:00"),
        ("2026-03-31T18:00Z", "2026-03-31T18:00:00+00:00"),
    ],
)
def test_a_date_means_the_end_of_that_day(text, last):
    assert moment(text) - datetime.fromisoformat(last) == timedelta(microseconds=1)


def test_what_had_come_by_a_date_counts_if_it_was_enough_then(dataset, tmp_path):
    config = config_of(dataset)
    run(config, tmp_path)
    store = store_of(tmp_path, config)
    # As an earlier version kept them: without a date, which is then the file's.
    (pack,) = store.folder.glob("pack-*")
    sent = {name: store.read(name) for name in store.names()}
    pack.unlink()
    for number, (name, upload) in enumerate(sent.items()):
        path = store.folder / f"node-{name}.safetensors"
        save_file(dict(upload.arrays), path, {"tag": upload.tag})
        day = datetime(2026, 3, 1 + number, 12, tzinfo=UTC).timestamp()
        os.utime(path, (day, day))
    found = solve_again(tmp_path, {}, "then", Selection(as_of="2026-03-08"))
    assert (found.clients, len(found.without)) == (8, 4)
    assert found.without["11"] == "came at 2026-03-12T12:00:00.000000+00:00, after 2026-03-08"
    with pytest.raises(
        UserError, match="Only 3 of 12 clients had sent an upload by 2026-03-03, fewer than the quorum"
    ):
        solve_again(tmp_path, {}, "then", Selection(as_of="2026-03-03"))
    assert solve_again(tmp_path, {"quorum": 0.2}, "then", Selection(as_of="2026-03-03")).clients == 3


def test_no_client_may_send_what_only_the_server_writes(dataset):
    strategy = strategy_of(config_of(dataset))
    rows = ClassMeans(torch.tensor([0, 1]), torch.tensor([3, 4]), torch.rand(2, DIM), torch.tensor([1e6, 1e6]))
    sent = corrected(rows)
    assert torch.equal(strategy.read_kept(sent).noise, rows.noise)
    with pytest.raises(UserError, match="class-means.corrected"):
        strategy.read_upload(sent)


def test_a_result_without_some_clients_stands_beside_the_whole_one(dataset, tmp_path):
    run(config_of(dataset), tmp_path)
    for name in ("3", "4"):
        append_result(tmp_path, solve_again(tmp_path, {}, f"without-{name}", Selection(without=(name,))))
    append_result(tmp_path, solve_again(tmp_path, {}, "without-4", Selection(without=("4",))))
    assert [list(result.without) for result in load_results(tmp_path)] == [[], ["3"], ["4"]]
    labels = [average.label for average in averages_over_seeds(load_results(tmp_path))]
    assert labels == ["fedcof", "fedcof, without 3", "fedcof, without 4"]
