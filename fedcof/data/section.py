"""The section ``data``: what there is to classify, and who holds what of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedcof.data.class_list import is_file
from fedcof.errors import UserError
from fedcof.keys import ABOVE_0, AT_LEAST_0, AT_LEAST_1, PROBABILITY, Acts, Beside, Changes, Section, Shown, key
from fedcof.statistics.kinds import CLASS_MEANS

NODES = "nodes"
FEATURES = "features:"
LONGEST_ENCODER = 200
ERROR, SKIP = BAD_IMAGES = ["error", "skip"]
INNER_DIRICHLET, DIRICHLET, IID, PATHOLOGICAL, SHARD, NATURAL = PARTITIONS = [
    "inner-dirichlet",
    "dirichlet",
    "iid",
    "pathological",
    "shard",
    "natural",
]
SEED_ORDER, LISTED_ORDER = CLASS_ORDERS = ["seed", "listed"]

_BOTH = Acts.CLIENT | Acts.SERVER
_ON_NODES = Beside("dataset is nodes", lambda run: run.data.on_nodes)
_OF_IMAGES = Beside("dataset holds images", lambda run: not run.data.is_precomputed)
_ENCODED = Beside("encoder is set", lambda run: bool(run.data.encoder))
_DEALT = Beside("dataset is not nodes", lambda run: not run.data.on_nodes)
_DIRICHLET = Beside(
    "partition is a Dirichlet", lambda run: _DEALT.holds(run) and run.data.partition in (INNER_DIRICHLET, DIRICHLET)
)
_CLASSES = Beside("partition is pathological", lambda run: _DEALT.holds(run) and run.data.partition == PATHOLOGICAL)
_OWNERS = Beside("partition is natural", lambda run: _DEALT.holds(run) and run.data.partition == NATURAL)
_IN_STEPS = Beside(
    "dataset is not nodes and the method's clients send class means",
    lambda run: _DEALT.holds(run) and run.method.kind == CLASS_MEANS,
)
_BY_CLASS = Beside("class-steps is set", lambda run: _IN_STEPS.holds(run) and run.data.class_steps > 0)


def check_encoder(encoder: str) -> None:
    """Check what is declared of an encoder.

    Parameters
    ----------
    encoder : str
        Its name and version, a digest of it, or whatever tells it from others; empty for none.

    Raises
    ------
    UserError
        If it is no line of text.
    """
    if len(encoder) > LONGEST_ENCODER or not encoder.isprintable() or encoder != encoder.strip():
        raise UserError(
            f"The encoder is {encoder[:LONGEST_ENCODER]!r}, but it must be a text of up to {LONGEST_ENCODER} "
            "printable characters without blanks at its ends: give its name and version, or a digest of it."
        )


def _place_of_dataset(name: str) -> str:
    kind, _, place = name.partition(":")
    return place if kind in ("parquet", "folder", "features") else ""


def _place_of_classes(classes: str) -> str:
    # Names that look like a path would have to begin like one, or be called as a file is that lies here.
    return classes if classes.startswith(("/", "~", "./", "../")) or is_file(classes) else ""


@dataclass(frozen=True)
class DataSection(Section):
    """What there is to classify, and who holds what of it; each field says what it means."""

    NAME: ClassVar[str] = "data"

    dataset: str = key(
        "digits",
        "Dataset: digits, parquet:DIR, folder:DIR, hub:OWNER/NAME, features:DIR, or nodes (each node has its own).",
        _BOTH,
        Changes.UPLOAD,
        place=_place_of_dataset,
        shown=Shown.ALWAYS,
    )
    image_column: str = key(
        "", "Column of the images, where types and names do not tell.", _BOTH, Changes.UPLOAD, beside=_DEALT
    )
    label_column: str = key(
        "", "Column of the labels, where types and names do not tell.", _BOTH, Changes.UPLOAD, beside=_DEALT
    )
    bad_images: str = key(
        ERROR,
        "What to do about images that cannot be used: refuse them all by name (error), or leave them out (skip).",
        _BOTH,
        Changes.UPLOAD,
        choices=lambda: BAD_IMAGES,
        beside=_OF_IMAGES,
    )
    classes: str = key(
        "",
        "Names of the classes in order, separated by commas, as a JSON list, or a text file with a name a line.",
        _BOTH,
        Changes.UPLOAD,
        beside=_ON_NODES,
        place=_place_of_classes,
    )
    test_data: str = key(
        "",
        "Folder or table of the server's own test images, or features.",
        Acts.SERVER,
        Changes.RESULT,
        beside=_ON_NODES,
        place=lambda folder: folder,
        after_upload=True,
    )
    encoder: str = key(
        "",
        "Whatever computed the features that nodes have in place of images, by the name that each declares for it.",
        _BOTH,
        Changes.UPLOAD,
        check=check_encoder,
        beside=_ON_NODES,
        refused_without_effect=True,
    )
    feature_dim: int = key(
        0,
        "Dimension of the features that nodes have in place of images.",
        _BOTH,
        Changes.UPLOAD,
        numbers=AT_LEAST_0,
        beside=_ENCODED,
        refused_without_effect=True,
    )
    samples_per_class: int = key(
        0,
        "Training samples of each class that all clients together have, drawn by the seed; 0 for all.",
        _BOTH,
        Changes.UPLOAD,
        numbers=AT_LEAST_0,
        beside=_DEALT,
    )
    unheld_classes: float = key(
        0.0,
        "Share of the classes, drawn by the seed, of which no client has a sample.",
        _BOTH,
        Changes.UPLOAD,
        numbers=PROBABILITY,
        beside=_DEALT,
    )
    partition: str = key(
        INNER_DIRICHLET,
        "How the training split is dealt to clients.",
        _BOTH,
        Changes.UPLOAD,
        choices=lambda: PARTITIONS,
        beside=_DEALT,
        shown=Shown.ALWAYS,
    )
    alpha: float = key(
        0.1,
        "Concentration of the Dirichlet: the smaller, the fewer classes a client has.",
        _BOTH,
        Changes.UPLOAD,
        numbers=ABOVE_0,
        beside=_DIRICHLET,
        shown=Shown.ALWAYS,
    )
    classes_per_client: int = key(
        2,
        "Classes of each client.",
        _BOTH,
        Changes.UPLOAD,
        numbers=AT_LEAST_1,
        beside=_CLASSES,
        shown=Shown.ALWAYS,
    )
    partition_column: str = key("", "Column that names each sample's owner.", _BOTH, Changes.UPLOAD, beside=_OWNERS)
    num_clients: int = key(
        20, "Clients in the federation.", _BOTH, Changes.RESULT, numbers=AT_LEAST_1, shown=Shown.ALWAYS
    )
    class_steps: int = key(
        0,
        "Steps in which the classes arrive, as many in each as can be; 0 for all at once.",
        _BOTH,
        Changes.UPLOAD,
        numbers=AT_LEAST_0,
        beside=_IN_STEPS,
        refused_without_effect=True,
    )
    class_order: str = key(
        SEED_ORDER,
        "Order in which they do: drawn by the seed, or as they are listed.",
        _BOTH,
        Changes.UPLOAD,
        choices=lambda: CLASS_ORDERS,
        beside=_BY_CLASS,
        refused_without_effect=True,
    )
    schedule: str = key(
        "",
        "TOML file that says at which steps clients join and leave, classes arrive, and samples come.",
        _BOTH,
        Changes.UPLOAD,
        beside=_IN_STEPS,
        refused_without_effect=True,
        place=lambda file: file,
    )
    client_test_share: float = key(
        0.0,
        "Share of each client's samples that it keeps out of everything but evaluation.",
        _BOTH,
        Changes.UPLOAD,
        numbers=PROBABILITY,
    )
    seed: int = key(
        0,
        "Seed of the partition, of random groups, of training and of random weights.",
        _BOTH,
        Changes.UPLOAD,
        numbers=AT_LEAST_0,
        shown=Shown.NEVER,
        several="--seeds",
    )

    @property
    def on_nodes(self) -> bool:
        """Whether each node has data of its own."""
        return self.dataset == NODES

    @property
    def in_steps(self) -> bool:
        """Whether the federation changes over steps, and is solved after each."""
        return bool(self.class_steps or self.schedule)

    @property
    def is_precomputed(self) -> bool:
        """Whether the dataset holds features that were computed elsewhere."""
        return self.dataset.startswith(FEATURES) or bool(self.encoder)

    @property
    def source(self) -> tuple[str, ...]:
        """All that decides which images there are."""
        columns = self.image_column, self.label_column
        return self.dataset, *columns, self.classes, self.test_data, self.bad_images

    def check_together(self) -> None:
        """Check that nodes have classes, and nobody else, and features a dimension; raises UserError."""
        if self.on_nodes != bool(self.classes):
            raise UserError(
                f"The key classes is {self.classes!r} with the dataset {self.dataset!r}, but it is for nodes, "
                "which needs it: set both or neither."
            )
        if self.encoder and not self.feature_dim:
            raise UserError(
                f"The key {self.key_of('feature_dim').name} is 0 with the encoder {self.encoder!r}: set it to the "
                "dimension of that encoder's features."
            )
