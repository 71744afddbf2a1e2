"""Nodes with data of their own, in memory: names, hostile uploads, what is kept and what is screened."""

import struct
from zlib import crc32

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from fedcof import ClassMeans, FedCOF, UserError
from fedcof.privacy.mechanism import Privacy
from fedcof.run.config import RunConfig
from fedcof.statistics.moments import FeatureMoments, feature_moments
from fedcof.wire.codec import Sent
from fedcof.wire.encoding import codec_of, decode_class_means, encode_class_means
from fedcof.wire.gram import MOMENTS
from server import strategy
from server.federation import Federation
from server.intake import NodeRules
from server.screening import feature_scale, implausible
from server.upload_store import UploadStore, kept_configs
from tests.server.in_memory_grid import InMemoryGrid
from tests.simulations import hostile_client
from tests.simulations.hostile_client import CLASSES, DIM

FINGERPRINT = "f" * 64
CONFIG = RunConfig(dataset="nodes", classes="a,b,c", num_clients=5)


def node_config(folder, misbehave=(), names=None):
    def of(partition):
        place = folder / f"place-{partition}"
        place.mkdir(exist_ok=True)
        name = (names or {}).get(partition, f"site-{partition}")
        config = {"name": name, "data": str(place), "site": partition, "fingerprint": FINGERPRINT}
        return config | ({"misbehave": misbehave[partition]} if partition in misbehave else {})

    return of


def run(
    folder,
    misbehave=(),
    names=None,
    nodes=5,
    expected=5,
    quorum=0.5,
    config=CONFIG,
    seed=0,
    privacy=None,
    **grid_settings,
):
    store = UploadStore(folder / "out", config)
    grid = InMemoryGrid(
        hostile_client.app,
        nodes,
        seed=seed,
        node_config=node_config(folder, dict(misbehave), names),
        **grid_settings,
    )
    federation = Federation(grid, expected, 1.0, [name for name in store.names() if store.read(name)])
    rules = NodeRules(store, federation.names, FINGERPRINT, CLASSES, expected, federation.left_out, not privacy)
    fedcof = strategy.FedCOF(CLASSES, DIM, shrinkage=0.1, quorum=quorum, rules=rules, privacy=privacy)
    fedcof.start(federation, timeout=2.0, train_config=ConfigRecord({}))
    return fedcof, store


def three_rows():
    return torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5]), torch.rand(3, DIM)


def weight_of(sites):
    aggregator = FedCOF(CLASSES, DIM, shrinkage=0.1)
    for source, site in enumerate(sites):
        aggregator.add(decode_class_means(hostile_client.upload(site)), source)
    return aggregator.solve().weight


def asked(folder, partition):
    path = folder / f"place-{partition}" / "asked.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize("seed", range(3))
def test_clients_are_the_nodes_in_the_order_of_their_names(tmp_path, seed):
    fedcof, store = run(tmp_path, seed=seed)
    assert torch.equal(fedcof.solved().weight, weight_of(range(5)))
    assert [(n.name, n.outcome, n.samples, n.rows) for n in fedcof.intake.results()] == [
        (f"site-{site}", "accepted", 30, 3) for site in range(5)
    ]
    assert store.names() == [f"site-{site}" for site in range(5)]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("nan", "finite numbers"),
        ("infinite", "finite numbers"),
        ("dimension", "dimension 256"),
        ("class-range", "ids below 3"),
        ("negative", "at least 1 sample"),
        ("absurd", "at most 100,000,000 samples"),
        ("scale", "long where the median client's are"),
        ("bulk", "rows, but may have 3"),
        ("texts", "cannot be read"),
        ("corrupt", "cannot be read"),
        ("backbone", "(000000000000), are not the server's (ffffffffffff)"),
        ("transform", "(ffffffffffff-l2), are not the server's (ffffffffffff)"),
    ],
)
def test_a_hostile_upload_is_left_out_and_not_kept(tmp_path, monkeypatch, how, reason):
    # The test of real nodes sends the whole bulk.
    monkeypatch.setattr(hostile_client, "LARGE_BYTES", 10**7)
    fedcof, store = run(tmp_path, {2: how}.items())
    honest = [0, 1, 3, 4]
    assert fedcof.num_accepted == 4
    assert reason in fedcof.rejected[2]
    assert fedcof.intake.results()[2].outcome == f"left out: {fedcof.rejected[2]}"
    assert store.names() == [f"site-{site}" for site in honest]
    expected = FedCOF(CLASSES, DIM, shrinkage=0.1)
    for site in honest:
        expected.add(decode_class_means(hostile_client.upload(site)), site)
    assert torch.equal(fedcof.solved().weight, expected.solve().weight)


def test_with_privacy_uploads_are_measured_by_what_clipping_and_noise_can_make(tmp_path):
    """And not by one another, because noise makes those of few samples long."""
    fedcof, _ = run(tmp_path, {2: "scale"}.items(), privacy=Privacy(30.0, 1e-5, 2.5 * DIM**0.5))
    assert list(fedcof.rejected) == [2]
    assert "larger than clipping and privacy noise can make it" in fedcof.rejected[2]


def test_the_first_of_all_may_be_the_hostile_one(tmp_path):
    fedcof, _ = run(tmp_path, {0: "scale"}.items())
    assert list(fedcof.rejected) == [0]


def test_a_coded_upload_that_claims_many_rows_takes_no_memory_for_them(tmp_path):
    stream = encode_class_means(ClassMeans(*three_rows()), "coded", 1, step=0.1)["coded"].copy()
    content = bytearray(stream[:-4].tobytes())
    at = struct.calcsize("<5Bh2fI")
    content[at : at + 4] = struct.pack("<I", 10**9)
    forged = np.frombuffer(bytes(content) + struct.pack("<I", crc32(bytes(content))), dtype=np.uint8)
    assert codec_of({"coded": forged}).rows_claimed({"coded": forged}) == 10**9
    fedcof = strategy.FedCOF(CLASSES, DIM, rules=NodeRules(UploadStore(tmp_path, CONFIG), {}, "", 100, 1))
    with pytest.raises(UserError, match="1000000000 rows, but may have 100"):
        fedcof.read_upload(Sent({"coded": forged}))
    with pytest.raises(UserError, match="damaged"):
        decode_class_means({"coded": forged})
    with pytest.raises(UserError, match="changed or cut"):
        decode_class_means({"coded": stream[:-1]})


def test_a_node_is_asked_once_however_often_the_run_is_started(tmp_path):
    with pytest.raises(UserError, match=r"Only 3 of 5 clients .* \(client 1: "):
        run(tmp_path, {1: "nan"}.items(), quorum=1.0, failing=[3])
    fedcof, _ = run(tmp_path, quorum=1.0, seed=4)
    assert [asked(tmp_path, partition) for partition in range(5)] == [1, 2, 1, 1, 1]
    assert torch.equal(fedcof.solved().weight, weight_of(range(5)))
    outcomes = [node.outcome for node in fedcof.intake.results()]
    assert outcomes == ["accepted, from an earlier run" if site in (0, 2, 4) else "accepted" for site in range(5)]
    # With all uploads kept nobody has to be there, and nobody is asked.
    again, _ = run(tmp_path, nodes=1, names={0: "site-3"}, quorum=1.0)
    assert again.num_accepted == 5
    assert torch.equal(again.solved().weight, fedcof.solved().weight)


def test_a_kept_upload_that_is_damaged_is_asked_for_again(tmp_path):
    _, store = run(tmp_path)
    (store.folder / "node-site-2.safetensors").write_bytes(b"half")
    fedcof, _ = run(tmp_path)
    assert [asked(tmp_path, partition) for partition in range(5)] == [1, 1, 2, 1, 1]
    assert fedcof.num_accepted == 5


def test_missing_nodes_count_for_the_quorum_and_are_listed(tmp_path):
    with pytest.raises(UserError, match="Only 3 of 9 clients .*the others did not join"):
        run(tmp_path, nodes=3, expected=9)
    fedcof, _ = run(tmp_path, nodes=3, expected=5)
    assert [node.outcome for node in fedcof.intake.results()][-2:] == ["did not join"] * 2


def test_two_nodes_with_one_name_are_one_client(tmp_path):
    fedcof, _ = run(tmp_path, names={4: "site-1"})
    assert fedcof.num_accepted == 4
    assert ("site-1", "left out: two nodes have this name, of which the first is asked") in [
        (node.name, node.outcome) for node in fedcof.intake.results()
    ]


def test_a_dead_node_is_named(tmp_path):
    fedcof, _ = run(tmp_path, failing=[2])
    assert "the disk is full" in fedcof.rejected[2]


class RepeatingGrid(InMemoryGrid):
    """Delivers every reply twice."""

    def pull_messages(self, message_ids):
        return [reply for reply in super().pull_messages(message_ids) for _ in range(2)]


def test_a_reply_that_comes_twice_counts_once(tmp_path):
    grid = RepeatingGrid(hostile_client.app, 5, node_config=node_config(tmp_path))
    federation = Federation(grid, 5, 1.0)
    rules = NodeRules(UploadStore(tmp_path / "out", CONFIG), federation.names, FINGERPRINT, CLASSES, 5)
    fedcof = strategy.FedCOF(CLASSES, DIM, shrinkage=0.1, rules=rules)
    fedcof.start(federation, train_config=ConfigRecord({}))
    assert fedcof.num_accepted == 5
    assert torch.equal(fedcof.solved().weight, weight_of(range(5)))


def test_a_node_that_introduces_itself_with_nonsense_is_named():
    app = ClientApp()

    @app.query("introduction")
    def introduce(message, context):
        return Message(RecordDict({"something": ConfigRecord({"name": "x"})}), reply_to=message)

    with pytest.raises(UserError, match="does not say which partition it is, nor what data it has"):
        Federation(InMemoryGrid(app, 2), 2, 1.0)


def test_uploads_come_back_to_the_last_bit_and_under_any_name(tmp_path):
    store = UploadStore(tmp_path, CONFIG)
    names = ["../escape", "a b", "ünïcode", ".hidden", "c/d.safetensors"]
    for number, name in enumerate(names):
        store.keep(name, Sent(hostile_client.upload(number), "class-means.float32"))
    assert store.names() == sorted(names)
    for number, name in enumerate(names):
        for key, array in hostile_client.upload(number).items():
            assert np.array_equal(store.read(name).arrays[key], array)
            assert store.read(name).arrays[key].dtype == array.dtype
        assert store.read(name).tag == "class-means.float32"
    assert {path.parent for path in tmp_path.rglob("*.safetensors")} == {store.folder}
    store.remove("a b")
    assert store.read("a b") is None
    assert kept_configs(tmp_path) == [CONFIG]


def test_other_uploads_have_another_folder(tmp_path):
    configs = [CONFIG, RunConfig(dataset="nodes", classes="a,b,c", groups=2)]
    configs += [
        RunConfig(dataset="nodes", classes="a,b,c", method="fed3r"),
        RunConfig(dataset="nodes", classes="b,a,c"),
    ]
    assert len({UploadStore(tmp_path, config).folder for config in configs}) == 4
    same = RunConfig(dataset="nodes", classes="a\nb\nc", method="fedncm", shrinkage=3.0, num_clients=9)
    assert UploadStore(tmp_path, same).folder == UploadStore(tmp_path, CONFIG).folder


def test_the_scale_of_moments_is_that_of_their_features():
    features = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) * 3
    moments = feature_moments(features, torch.arange(40) % 3)
    expected = float(features.double().square().sum(dim=1).mean().sqrt())
    assert feature_scale(moments) == pytest.approx(expected, rel=1e-6)
    again = MOMENTS.decode(MOMENTS.encode(moments, 0))
    assert isinstance(again, FeatureMoments)
    assert feature_scale(again) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("scales", "wrong"),
    [
        ([1.0, 1000.0], []),
        ([1.0, 1.2, 0.9, 11.5], [3]),
        ([1.0, 1.2, 0.9, 0.01], [3]),
        ([5.0, 1.0, 9.9, 2.0], []),
        ([0.0, 0.0, 0.0], []),
    ],
)
def test_only_what_is_far_from_the_median_is_implausible(scales, wrong):
    assert list(implausible(dict(enumerate(scales)))) == wrong
