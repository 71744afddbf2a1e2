"""The run-config: every key a run takes, with its default, its type and what it may be."""

from __future__ import annotations

import keyword
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from fedcof.covariance.shrinkage import check_shrinkage
from fedcof.errors import UserError, unknown_name
from fedcof.wire.arrays import CODED
from fedcof.wire.encoding import ENCODINGS

METHODS = ["fedncm", "fedcof", "fed3r", "random", "oracle"]
NO_TRAINING, LINEAR_PROBE, FINE_TUNE = CONTINUATIONS = ["none", "linear-probe", "fine-tune"]
STRATEGIES = ["fedavg", "fedavgm", "fedadam", "fedyogi", "fedprox"]
NODES = "nodes"
OPTIMIZERS = ["sgd", "adamw"]
SCHEDULES = ["constant", "cosine"]

_UPLOAD = ["groups", "encoding", "rounding-noise", "bytes-per-client", "bytes-per-class"]
_PRIVACY = ["epsilon", "delta", "clip-norm", "subtract-noise"]

IGNORED_KEYS = {
    "fedncm": ["estimator", "head", "groups", "bytes-per-client", "bytes-per-class", "diagnose"],
    "fedcof": [],
    "fed3r": ["estimator", "head", "diagnose", *_UPLOAD],
    "random": ["estimator", "head", "diagnose", *_UPLOAD, *_PRIVACY, "init-rounds", "fraction"],
    "oracle": ["estimator", "diagnose", *_UPLOAD, *_PRIVACY, "init-rounds", "fraction", "dropout", "continue"],
}
"""Keys that would change nothing for a method, and so must be left alone; a comparison leaves them by itself."""

Scalar = bool | int | float | str

BUDGETS = ["bytes-per-client", "bytes-per-class"]


def keys_without_effect(values: Mapping[str, object]) -> set[str]:
    """Collect the keys that change nothing beside the values of the others.

    Parameters
    ----------
    values : mapping
        Keys of a run-config, the method among them.

    Returns
    -------
    set of str
        Those of :data:`IGNORED_KEYS`; what a budget chooses, or the budgets where there is none; and what goes with
        an encoding or a privacy that is not chosen.
    """
    keys = set(IGNORED_KEYS[str(values["method"])])
    budgets = [key for key in BUDGETS if key not in keys and values.get(key)]
    if budgets:
        keys |= {"groups", "encoding", "rounding-noise"} | (set(BUDGETS) - set(budgets))
    else:
        keys |= set(BUDGETS)
    if values.get("encoding") != CODED:
        keys.add("rounding-noise")
    if not values.get("epsilon"):
        keys |= {"delta", "clip-norm", "subtract-noise"}
    return keys


@dataclass(frozen=True)
class RunConfig:
    """What one run does; the fields are Flower's run-config keys with ``-`` written as ``_``.

    Attributes
    ----------
    method : str
        How the server makes a classifier of the uploads.
    dataset, image_column, label_column : str
        Dataset name, and its columns where they cannot be told by their types.
    classes, test_data : str
        For the dataset ``nodes``, whose images lie on the nodes: the names of the classes in order, separated by
        commas or as a file with a name a line; and a folder or table of the server's own test images, or none.
    partition : str
        How the training split is dealt to clients, with ``alpha`` (Dirichlet concentration), ``classes_per_client``
        (pathological) and ``partition_column`` (natural).
    num_clients : int
        Clients in the federation.
    backbone, weights : str
        timm name; and ``pretrained``, ``none`` or a local file.
    image_size : int
        Height and width in pixels that the backbone sees; 0 for its own.
    batch_size : int
        Images embedded at once, and samples of a step of training.
    feature_cache : bool
        Whether virtual clients slice features embedded once per dataset, or embed their own images.
    estimator, shrinkage, head
        See :class:`fedcof.FedCOF`.
    ridge_penalty : float
        Penalty lambda of Fed3R's ridge regression.
    groups : int
        Class means that a client sends per class; 0 to choose by the number of clients.
    encoding : str
        How class means are written on the wire; for ``coded``, ``rounding_noise`` is the variance that rounding
        adds, as a share of the sampling noise of every mean.
    bytes_per_client, bytes_per_class : int
        Most bytes of a client's upload, or for each class that the client holds; 0 for any number. A budget chooses
        groups and rounding by itself, for the encoding ``coded``.
    epsilon, delta : float
        Differential privacy of every sample in its client's one upload; an epsilon of 0 for none. Who asks a client
        in several runs spends the sum of what they cost.
    clip_norm : float
        Longest feature vector, in the backbone's units, that counts in full; goes with ``epsilon``.
    subtract_noise : bool
        Whether the server takes the known noise of privacy off its covariance and the lengths of its class means.
    init_rounds : int
        Rounds in which clients are asked for their statistics, each client once.
    fraction : float
        Share of all clients, above 0 and at most 1, asked in a round.
    dropout : float
        Probability, from 0 to below 1, with which a client fails to answer, to see what that does.
    broadcast : bool
        Whether all clients are sent the classifier in the end.
    continue_ : str
        What follows the closed form: ``none``, ``linear-probe`` (train the head) or ``fine-tune`` (train all).
    continue_rounds : int
        Rounds of training.
    continue_strategy : str
        Flower's strategy that runs them, with ``server_learning_rate`` (fedavgm, fedadam, fedyogi; 0 for the
        strategy's own default here) and ``proximal_mu`` (fedprox).
    continue_fraction : float
        Share of all clients, above 0 and at most 1, that train in a round, drawn anew for each.
    local_epochs : int
        Passes over a client's samples in a round.
    optimizer : str
        The clients' optimizer, with ``learning_rate`` for the head, ``backbone_learning_rate`` for the backbone,
        ``learning_rate_schedule`` over the rounds, ``weight_decay``, and ``gradient_clip``, the largest norm of a
        step's gradient (0: any).
    client_test_share : float
        Share of each client's samples, from 0 to below 1, that it keeps out of everything but evaluation.
    clients_per_node : int
        Clients that one simulated SuperNode hosts; 0 to choose by their number.
    num_cpus : int
        CPU cores of a simulated SuperNode at work; as many work at once as the machine has room for.
    num_gpus : float
        GPUs of a simulated SuperNode at work: a share from 0 to 1, or a whole number; -1 to derive it from the
        memory that the backbone takes. It does not cap the memory that is used.
    ray_address : str
        HOST:PORT of an existing Ray cluster to simulate on; empty for a Ray of one's own on this machine.
    diagnose : bool
        Whether a simulated run of FedCOF puts its covariance beside the oracle's.
    quorum : float
        Share of the clients, from 0 to 1, whose upload must be accepted.
    node_timeout, reply_timeout : float
        Seconds to wait for the nodes to join, and for a reply.
    seed : int
        Seed of the partition, of random groups, and of random weights.
    output, plan : str
        Folder for the results; file that lists several runs, written by ``fedcof compare``.

    Raises
    ------
    UserError
        If a value cannot be what its key means.
    """

    method: str = "fedcof"
    dataset: str = "digits"
    image_column: str = ""
    label_column: str = ""
    classes: str = ""
    test_data: str = ""
    partition: str = "inner-dirichlet"
    alpha: float = 0.1
    classes_per_client: int = 2
    partition_column: str = ""
    num_clients: int = 20
    backbone: str = "tf_efficientnet_lite0"
    weights: str = "pretrained"
    image_size: int = 64
    batch_size: int = 64
    feature_cache: bool = True
    estimator: str = "per-class"
    shrinkage: float | str = "leave-one-out"
    head: str = "ridge"
    ridge_penalty: float = 0.01
    groups: int = 1
    encoding: str = "float32"
    rounding_noise: float = 0.02
    bytes_per_client: int = 0
    bytes_per_class: int = 0
    epsilon: float = 0.0
    delta: float = 1e-5
    clip_norm: float = 0.0
    subtract_noise: bool = True
    init_rounds: int = 1
    fraction: float = 1.0
    dropout: float = 0.0
    broadcast: bool = True
    continue_: str = "none"
    continue_rounds: int = 20
    continue_strategy: str = "fedavg"
    continue_fraction: float = 1.0
    local_epochs: int = 1
    optimizer: str = "sgd"
    learning_rate: float = 0.05
    backbone_learning_rate: float = 0.001
    learning_rate_schedule: str = "constant"
    weight_decay: float = 0.0
    gradient_clip: float = 10.0
    server_learning_rate: float = 0.0
    proximal_mu: float = 0.0
    client_test_share: float = 0.0
    clients_per_node: int = 0
    num_cpus: int = 1
    num_gpus: float = -1.0
    ray_address: str = ""
    diagnose: bool = False
    quorum: float = 0.8
    node_timeout: float = 120.0
    reply_timeout: float = 3600.0
    seed: int = 0
    output: str = ""
    plan: str = ""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise unknown_name(_key_of(name), getattr(self, name), choices)
        check_shrinkage(self.shrinkage)
        for name in _AT_LEAST_1:
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in _AT_LEAST_0:
            _require(0 <= getattr(self, name) < math.inf, name, "at least 0", getattr(self, name))
        for name in _ABOVE_0:
            _require(0 < getattr(self, name) < math.inf, name, "above 0", getattr(self, name))
        for name in _SHARES:
            _require(0 < getattr(self, name) <= 1, name, "above 0 and at most 1", getattr(self, name))
        for name in _PROBABILITIES:
            _require(0 <= getattr(self, name) < 1, name, "from 0 to below 1", getattr(self, name))
        _check_num_gpus(self.num_gpus)
        _check_ray_address(self.ray_address)
        for key in IGNORED_KEYS[self.method]:
            name = _name_of(key)
            default = RunConfig.__dataclass_fields__[name].default
            _require(getattr(self, name) == default, name, f"{default} for {self.method}", getattr(self, name))
        self._check_budget()
        self._check_continuation()
        self._check_nodes()
        self._check_privacy()

    def _check_privacy(self) -> None:
        if (self.epsilon > 0) != (self.clip_norm > 0):
            raise UserError(
                f"The key epsilon is {self.epsilon:g} and clip-norm is {self.clip_norm:g}, but privacy needs both "
                "above 0: set both or neither."
            )
        _require(0 < self.delta < 1, "delta", "above 0 and below 1", self.delta)
        if not self.epsilon:
            return
        # Each of these depends on samples, or lets one sample move others, in a way that the noise does not cover.
        for name, allowed in (("continue_", NO_TRAINING), ("client_test_share", 0)):
            _require(getattr(self, name) == allowed, name, f"{allowed} with an epsilon", getattr(self, name))
        _require(self.groups > 0, "groups", "at least 1 with an epsilon", self.groups)
        if self.has_budget or self.encoding == CODED:
            raise UserError(
                "The encoding coded and a budget in bytes look at the samples to choose their step, which the "
                "noise of an epsilon does not cover: choose another encoding, or no epsilon."
            )

    def _check_budget(self) -> None:
        if self.encoding != CODED and self.rounding_noise != RunConfig.rounding_noise:
            raise UserError(
                f"The key rounding-noise is {self.rounding_noise:g}, but the encoding {self.encoding} rounds in "
                "its own way: set encoding to coded, or leave rounding-noise."
            )
        if not self.has_budget:
            return
        if self.bytes_per_client and self.bytes_per_class:
            raise UserError(
                "Both bytes-per-client and bytes-per-class are set, but there can be one budget: leave one."
            )
        chosen = {"groups": 1, "encoding": "float32", "rounding_noise": RunConfig.rounding_noise}
        for name, default in chosen.items():
            if getattr(self, name) != default:
                raise UserError(
                    f"The key {_key_of(name)} is {getattr(self, name)}, but a budget in bytes chooses it: set one "
                    "or the other."
                )

    def _check_nodes(self) -> None:
        if (self.dataset == NODES) != bool(self.classes):
            raise UserError(
                f"The key classes is {self.classes!r} with the dataset {self.dataset!r}, but it is for nodes, "
                "which needs it: set both or neither."
            )
        if self.dataset == NODES and self.method == "oracle":
            raise UserError("The oracle needs all images in one place, but with the dataset nodes nobody has them.")
        if self.dataset == NODES and self.diagnose:
            raise UserError(
                "The key diagnose compares with all images in one place, but with the dataset nodes nobody has "
                "them: set it to false."
            )

    def _check_continuation(self) -> None:
        if self.method == "random" and self.continue_ == NO_TRAINING:
            raise UserError(
                "The method random is a head to start training from: set continue to linear-probe or fine-tune."
            )
        if self.continue_ == FINE_TUNE and self.dataset.startswith("features:"):
            raise UserError(
                f"Fine-tuning needs images, but the dataset is {self.dataset!r}: set continue to linear-probe, or "
                "name a dataset of images."
            )
        if self.continue_ != NO_TRAINING and (self.continue_strategy == "fedprox") != (self.proximal_mu > 0):
            raise UserError(
                f"The key proximal-mu is {self.proximal_mu:g} with the strategy {self.continue_strategy}, but it "
                "is fedprox's, which needs it above 0: set both or neither."
            )

    @property
    def has_budget(self) -> bool:
        """Whether bytes are given, and so groups and rounding are chosen."""
        return bool(self.bytes_per_client or self.bytes_per_class)

    @property
    def num_replies(self) -> int:
        """How many replies the run takes from clients, as far as it is known before."""
        asked = math.ceil(self.fraction * self.num_clients) * self.init_rounds
        collecting = 0 if self.method in ("random", "oracle") else min(self.num_clients, asked)
        if self.continue_ == NO_TRAINING:
            return collecting
        return collecting + self.continue_rounds * max(1, round(self.continue_fraction * self.num_clients))

    @staticmethod
    def from_mapping(values: Mapping[str, object]) -> RunConfig:
        """Make a run-config of kebab-case keys, with defaults for those that are missing.

        Parameters
        ----------
        values : mapping
            Keys as Flower has them; a number may stand for its text and the other way round.

        Returns
        -------
        RunConfig
            The checked configuration.

        Raises
        ------
        UserError
            If a key is unknown or a value has the wrong type.
        """
        defaults = RunConfig.defaults()
        for key in values:
            if key not in defaults:
                raise unknown_name("key", key, sorted(defaults))
        typed = {_name_of(key): _as_type_of(key, value, defaults[key]) for key, value in values.items()}
        return RunConfig(**typed)  # type: ignore[arg-type]

    @staticmethod
    def defaults() -> dict[str, Scalar]:
        """All keys, in kebab case, with their defaults."""
        return {_key_of(field.name): field.default for field in fields(RunConfig)}  # type: ignore[misc]

    def to_mapping(self) -> dict[str, Scalar]:
        """All keys, in kebab case, with this run's values."""
        return {_key_of(name): value for name, value in asdict(self).items()}


_CHOICES = {
    "method": METHODS,
    "encoding": ENCODINGS,
    "continue_": CONTINUATIONS,
    "continue_strategy": STRATEGIES,
    "optimizer": OPTIMIZERS,
    "learning_rate_schedule": SCHEDULES,
}
_AT_LEAST_1 = ["num_clients", "batch_size", "classes_per_client", "init_rounds", "num_cpus"]
_AT_LEAST_1 += ["continue_rounds", "local_epochs"]
_AT_LEAST_0 = ["groups", "image_size", "clients_per_node", "seed", "ridge_penalty"]
_AT_LEAST_0 += ["bytes_per_client", "bytes_per_class"]
_AT_LEAST_0 += ["epsilon", "clip_norm"]
_AT_LEAST_0 += ["weight_decay", "gradient_clip", "server_learning_rate", "proximal_mu"]
_ABOVE_0 = ["alpha", "rounding_noise", "node_timeout", "reply_timeout", "learning_rate", "backbone_learning_rate"]
_SHARES = ["quorum", "fraction", "continue_fraction"]
_PROBABILITIES = ["dropout", "client_test_share"]


def _key_of(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _name_of(key: str) -> str:
    name = key.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def _as_type_of(key: str, value: object, default: Scalar) -> Scalar:
    """Convert a value to its key's type without losing anything."""
    if key == "shrinkage":
        return _number_or_text(value)
    if isinstance(value, type(default)) and isinstance(value, bool) == isinstance(default, bool):
        return value
    text = str(value)
    if isinstance(default, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    elif isinstance(default, str):
        if isinstance(value, int | float):
            return text
    else:
        try:
            return type(default)(text)
        except ValueError:
            pass
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    raise UserError(f"The key {key} is {value!r}, but it takes {kinds[type(default)]}: give one of that kind.")


def _number_or_text(value: object) -> float | str:
    try:
        return float(str(value))
    except ValueError:
        return str(value)


def _check_num_gpus(num_gpus: float) -> None:
    # Ray gives out shares of one GPU, or whole ones.
    holds = num_gpus == -1 or 0 <= num_gpus <= 1 or (num_gpus > 1 and float(num_gpus).is_integer())
    _require(holds, "num_gpus", "-1, from 0 to 1, or a whole number", num_gpus)


def _check_ray_address(address: str) -> None:
    host, separator, port = address.rpartition(":")
    holds = bool(host and separator) and "/" not in host and port.isascii() and port.isdigit()
    _require(not address or holds, "ray_address", "HOST:PORT of a Ray cluster, or empty", repr(address))


def _require(holds: bool, name: str, expected: str, found: object) -> None:
    if not holds:
        raise UserError(f"The key {_key_of(name)} is {found}, but it must be {expected}: give such a value.")
