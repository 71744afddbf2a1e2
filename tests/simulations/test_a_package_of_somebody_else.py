"""A method, two codecs, a head and a tracker of somebody else's: this module is their package, by entry points."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict

from fedcof.covariance.totals import ClassTotals
from fedcof.errors import UserError
from fedcof.heads.head import Head
from fedcof.heads.linear import LinearClassifier
from fedcof.heads.registry import HEADS
from fedcof.methods.chain import Chain, Encode, Measure, Withhold
from fedcof.methods.method import FederatedMethod, Samples, no_private_form
from fedcof.methods.registry import METHODS
from fedcof.privacy.mechanism import Privacy
from fedcof.privacy.noise import SeededNoise
from fedcof.run.config import RunConfig
from fedcof.run.results import load_results
from fedcof.statistics.base import Statistics
from fedcof.statistics.class_means import ClassMeans, class_means
from fedcof.statistics.validation import check_classes, check_vectors
from fedcof.wire.codec import Codec
from fedcof.wire.registry import CODECS
from fedcof.wire.section import WireSection
from server.trackers.registry import TRACKERS
from server.trackers.tracker import Tracker


@dataclass(frozen=True, eq=False)
class Spreads(Statistics):
    """Class means, and the variance of every coordinate around them."""

    KIND: ClassVar[str] = "spreads"
    VECTORS: ClassVar[str] = "means"
    MIXES_CLASSES: ClassVar[bool] = False

    means: torch.Tensor
    variances: torch.Tensor

    def __post_init__(self):
        check_classes(self.class_ids, self.counts)
        check_vectors("means", self.means, len(self.class_ids))
        check_vectors("variances", self.variances, len(self.class_ids))

    @property
    def feature_dim(self):
        return self.means.shape[1]

    def withhold(self, smallest_count):
        enough = self.counts >= smallest_count
        rows = (field[enough] for field in (self.class_ids, self.counts, self.means, self.variances))
        return Spreads(*rows), int((~enough).sum())

    def sum_of_squares(self):
        return float(self.counts.double() @ self.means.double().square().sum(dim=1))


class SpreadsCodec(Codec):
    kind = "spreads"
    encoding = "float64"

    def encode(self, statistics, seed):
        fields = ("class_ids", "counts", "means", "variances")
        return {name: getattr(statistics, name).numpy() for name in fields}

    def decode(self, arrays):
        return Spreads(
            *(torch.from_numpy(np.array(arrays[n])) for n in ("class_ids", "counts", "means", "variances"))
        )

    def rows_claimed(self, arrays):
        return len(arrays["class_ids"])


class NegatedMeansCodec(Codec):
    """Class means with another sign, which no other codec would read back rightly."""

    kind = "class-means"
    encoding = "negated"

    def encode(self, statistics, seed):
        return {
            "ids": statistics.class_ids.numpy(),
            "counts": statistics.counts.numpy(),
            "negated": -statistics.means.numpy(),
        }

    def decode(self, arrays):
        ids, counts, negated = (torch.from_numpy(np.array(arrays[name])) for name in ("ids", "counts", "negated"))
        return ClassMeans(ids, counts, -negated)

    def rows_claimed(self, arrays):
        return len(arrays["ids"])


def diagonal_classifier(totals, variances):
    weight = totals.means / variances
    bias = -(weight * totals.means).sum(dim=1) / 2
    return LinearClassifier((weight * totals.present[:, None]).float(), bias.float(), totals.present)


class DiagonalHead(Head):
    """Linear discriminant analysis that looks at the diagonal alone."""

    name = "diagonal"
    unit_length = False

    def solve(self, scatter, totals):
        return diagonal_classifier(totals, scatter.diagonal() / totals.sample_degrees_of_freedom.sum())


class SpreadsAggregator:
    def __init__(self, num_classes, feature_dim):
        self.num_classes, self.feature_dim = num_classes, feature_dim
        self.uploads = {}

    def add(self, upload, source=None):
        self.uploads[len(self.uploads) if source is None else source] = upload

    def totals(self):
        counts, sums = (
            torch.zeros(self.num_classes, dtype=torch.float64),
            torch.zeros(self.num_classes, self.feature_dim),
        )
        sums, rows, variances = sums.double(), counts.clone(), torch.zeros(self.feature_dim, dtype=torch.float64)
        for _, upload in sorted(self.uploads.items()):
            counts.index_add_(0, upload.class_ids, upload.counts.double())
            rows.index_add_(0, upload.class_ids, torch.ones(upload.num_rows).double())
            sums.index_add_(0, upload.class_ids, upload.counts[:, None] * upload.means.double())
            variances += upload.counts.double() @ upload.variances
        totals = ClassTotals(counts=counts, rows=rows, means=sums / counts.clamp(min=1)[:, None])
        return totals, variances / counts.sum() + 1e-3

    def solve(self):
        return diagonal_classifier(*self.totals())

    def class_means(self):
        return self.totals()[0].means


class SpreadsMethod(FederatedMethod):
    name = "spreads"
    title = "Spreads of somebody"
    statistics = Spreads

    def measure(self, samples, groups):
        means = class_means(samples.features, samples.labels)
        within = (
            (samples.features - means.means[torch.searchsorted(means.class_ids, samples.labels)]).double().square()
        )
        sums = torch.zeros(means.num_rows, within.shape[1], dtype=torch.float64)
        sums.index_add_(0, torch.searchsorted(means.class_ids, samples.labels), within)
        return Spreads(means.class_ids, means.counts, means.means, sums / means.counts[:, None])

    def measure_privately(self, samples, groups, privacy, source):
        raise no_private_form(self)

    def received(self, statistics, privacy, num_classes, subtract_noise):
        raise no_private_form(self)

    def aggregator(self, num_classes, feature_dim, section, privacy=None, subtract_noise=True):
        return SpreadsAggregator(num_classes, feature_dim)


class Diary(Tracker):
    """A line for whatever it is told, in the run's folder."""

    name = "diary"

    def on_run_start(self, config, output, folder):
        self.path = output / folder / "diary.txt"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.write(f"start {config.method.name}")

    def on_reply(self, client):
        self.write(f"reply {client}")

    def on_round_end(self, result, run):
        self.write(f"round {result.round} {result.accuracy}")

    def on_run_end(self, result):
        self.write(f"end {result.accuracy}")

    def write(self, line):
        with self.path.open("a") as diary:
            diary.write(line + "\n")


CODEC, NEGATED, HEAD, METHOD = SpreadsCodec(), NegatedMeansCodec(), DiagonalHead(), SpreadsMethod()
OFFERED = [
    (CODECS, "spreads.float64", CODEC),
    (CODECS, "class-means.negated", NEGATED),
    (HEADS, "diagonal", HEAD),
    (METHODS, "spreads", METHOD),
    (TRACKERS, "diary", Diary),
]


@pytest.fixture(autouse=True, scope="module")
def registered():
    """Make all of it known in this process, while these tests run."""
    for registry, name, item in OFFERED:
        assert registry.register(name, item) is item
    yield
    for registry, name, _ in OFFERED:
        registry.unregister(name)
        assert name not in registry.names()


STAGES = (Measure(METHOD, 3), Withhold(METHOD, 3, 5, smallest_count=12), Encode(METHOD, WireSection(), 1, 3, 3))

ENTRY_POINTS = """
[fedcof.methods]
spreads = {module}:METHOD
[fedcof.heads]
diagonal = {module}:HEAD
[fedcof.codecs]
spreads.float64 = {module}:CODEC
class-means.negated = {module}:NEGATED
[fedcof.trackers]
diary = {module}:Diary
"""

TINY = ["-c", "backbone=test_efficientnet", "-c", "weights=none", "-c", "image-size=32", "-c", "num-clients=3"]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Put this module where Python finds packages, as pip does, for Flower's and Ray's processes."""
    site = tmp_path / "site"
    (site / "somebody-1.0.dist-info").mkdir(parents=True)
    (site / "somebody.py").write_text(Path(__file__).read_text())
    (site / "somebody-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n"
    )
    (site / "somebody-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS.format(module="somebody"))
    monkeypatch.setenv("PYTHONPATH", str(site))


@pytest.mark.flower
def test_a_method_a_codec_a_head_and_a_tracker_run_on_flower_and_ray(
    fedcof, installed, image_folder, tmp_path, capsys
):
    out = tmp_path / "out"
    dataset = f"dataset=folder:{image_folder}"
    settings = [
        "-c",
        "head=[ridge,diagonal]",
        "-c",
        "encoding=negated",
        "-c",
        "shrinkage=0.1",
        "-c",
        "trackers=diary",
    ]
    methods = ["--methods", "fedncm,spreads,fedcof"]
    assert fedcof("compare", "-c", dataset, *TINY, *settings, *methods, "-o", out) == (0, "")
    runs = {(run.method, run.config["head"]): run for run in load_results(out)}
    assert set(runs) == {
        ("fedncm", "quadratic"),
        ("spreads", "quadratic"),
        ("fedcof", "ridge"),
        ("fedcof", "diagonal"),
    }
    spreads, diagonal = runs["spreads", "quadratic"], runs["fedcof", "diagonal"]
    for run in runs.values():
        assert run.accuracy > 0.8
        assert (run.clients, run.clients_rejected) == (3, 0)
        assert LinearClassifier.load(out / run.head).num_classes == 2
    # Eight bytes a number, of means in four and variances in eight.
    assert spreads.expected_uplink_bytes > 2 * runs["fedncm", "quadratic"].expected_uplink_bytes
    ledger = list(csv.DictReader((out / Path(spreads.head).parent / "ledger.csv").open()))
    asked = [row for row in ledger if row["message"] == "query.statistics"]
    assert sum(int(row["uplink_bytes"]) for row in asked) > spreads.expected_uplink_bytes
    assert diagonal.config["encoding"] == "negated"
    for run in runs.values():
        diary = (out / Path(run.head).parent / "diary.txt").read_text().splitlines()
        assert diary[0] == f"start {run.method}"
        assert sorted(diary[1:4]) == ["reply 0", "reply 1", "reply 2"]
        assert diary[4:] == [f"round 1 {run.rounds[0].accuracy}", f"end {run.accuracy}"]
    page = (out / "report.html").read_text()
    assert "spreads" in page
    assert "diagonal" in page
    assert (out / "accuracy_vs_bytes.png").stat().st_size > 10_000
    assert "spreads" in (out / "comparison.csv").read_text()
    image = next((image_folder / "test" / "dark").iterdir())
    alone = out / Path(spreads.head).parent
    capsys.readouterr()
    assert fedcof("predict", alone, image)[0] == 0
    assert "spreads" in [run["method"] for run in json.loads((out / "results.json").read_text())]


def samples(size=40):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (size,), generator=generator)
    return Samples(torch.randn(size, 5, generator=generator), labels, 3)


def test_its_statistics_pass_every_stage():
    chain = Chain(STAGES)
    upload = chain.send(samples())
    assert upload.tag == "spreads.float64"
    assert upload.withheld == int((torch.bincount(samples().labels) < 12).sum()) > 0
    received = chain.receive(upload.arrays, upload.tag)
    assert received.counts.min() >= 12
    with pytest.raises(UserError, match="it sent class-means statistics, but was asked for spreads"):
        chain.receive(NEGATED.encode(class_means(samples().features, samples().labels), 0), NEGATED.tag)
    with pytest.raises(UserError, match="dimension 4"):
        Chain((STAGES[0], Withhold(METHOD, 3, 4), STAGES[2])).receive(upload.arrays, upload.tag)
    with pytest.raises(UserError, match="rows, but may have 1"):
        Chain((*STAGES[:2], Encode(METHOD, WireSection(), 1, 3, 1))).receive(upload.arrays, upload.tag)


@pytest.mark.parametrize("missing", ["withhold", "sum_of_squares", "feature_dim", "KIND", "MIXES_CLASSES"])
def test_statistics_that_do_not_say_how_they_are_treated_cannot_be_registered(missing):
    content = {
        name: value for name, value in vars(Spreads).items() if name not in (missing, "__dict__", "__weakref__")
    }
    content.pop("__abstractmethods__", None)
    unsaid = type("Unsaid", (Statistics,), content)
    method = type("UnsaidMethod", (SpreadsMethod,), {"name": "unsaid", "statistics": unsaid})()
    with pytest.raises(UserError, match=f"do not say their {missing}"):
        METHODS.register("unsaid", method)
    assert "unsaid" not in METHODS.names()


def test_what_is_not_whole_cannot_be_registered():
    unwritten = type("Unwritten", (Spreads,), {"KIND": "unwritten"})
    method = type("UnwrittenMethod", (SpreadsMethod,), {"name": "unwritten", "statistics": unwritten})()
    with pytest.raises(UserError, match="No codec writes the statistics unwritten"):
        METHODS.register("unwritten", method)
    half = type("Half", (FederatedMethod,), {"name": "half", "title": "Half", "statistics": Spreads})
    with pytest.raises(TypeError, match="abstract"):
        half()
    with pytest.raises(UserError, match="fills in .*FederatedMethod or"):
        METHODS.register("half", half)
    with pytest.raises(UserError, match="There is a head ridge already"):
        HEADS.register("ridge", HEAD)
    with pytest.raises(UserError, match="says of itself that it is spreads.float64"):
        CODECS.register("spreads.other", CODEC)
    with pytest.raises(UserError, match="says of itself that it is diagonal"):
        HEADS.register("other", HEAD)
    with pytest.raises(UserError, match="says of itself that it is diary"):
        TRACKERS.register("other", Diary)
    with pytest.raises(UserError, match="give a class that inherits from .*Tracker"):
        TRACKERS.register("another", Diary())
    with pytest.raises(UserError, match="There is a tracker wandb already"):
        TRACKERS.register("wandb", Diary)


def test_keys_are_refused_where_they_mean_nothing_to_it():
    assert RunConfig(method="spreads").method.chosen is METHOD
    for key, value in (("head", "lda"), ("groups", 4), ("encoding", "int8"), ("estimator", "pooled")):
        with pytest.raises(UserError, match=f"The key {key} is {value}, but it must be"):
            RunConfig(method="spreads", **{key: value})
    private = Chain((Measure(METHOD, 3, Privacy(1.0, 1e-5, 1.0), lambda: SeededNoise(0, 0)), *STAGES[1:]))
    with pytest.raises(UserError, match="spreads has no private form"):
        private.send(samples())


def test_a_node_that_does_not_allow_its_statistics_refuses(tmp_path, image_folder):
    from clients.app import statistics_of_client

    def ask(**allowed):
        config = RunConfig(
            method="spreads",
            dataset="nodes",
            classes="dark,bright",
            backbone="test_efficientnet",
            weights="none",
            image_size=32,
            feature_cache=False,
        )
        node = {"name": "site", "data": str(image_folder / "train"), "state": str(tmp_path), **allowed}
        context = Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config=config.to_mapping())
        return statistics_of_client(0, RecordDict(), context)

    with pytest.raises(UserError, match="the policy of site does not allow spreads statistics, only class-means"):
        ask()
    reply = ask(**{"allow-statistics": "class-means,spreads"})
    assert "statistics.spreads.float64" in reply.array_records
    few = ask(**{"allow-statistics": "spreads", "smallest-count": 100})
    assert few.config_records["node"]["withheld"] == 2
