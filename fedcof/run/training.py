"""The section ``training``: what follows the closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedcof.errors import UserError
from fedcof.heads.adapter_options import AdapterOptions, check_layers
from fedcof.heads.step_size import gradient_step, sign_step
from fedcof.keys import ABOVE_0, AT_LEAST_0, AT_LEAST_1, BELOW_HALF, SHARE, Acts, Beside, Changes, Section, key

NO_TRAINING, LINEAR_PROBE, ADAPTERS, FINE_TUNE = CONTINUATIONS = ["none", "linear-probe", "adapters", "fine-tune"]
FEDAVG, FEDAVGM, FEDADAM, FEDYOGI, FEDPROX = _USUAL = ["fedavg", "fedavgm", "fedadam", "fedyogi", "fedprox"]
KRUM, BULYAN, TRIMMED_MEAN, MEDIAN, Q_FEDAVG = _ROBUST = ["krum", "bulyan", "trimmed-mean", "median", "q-fedavg"]
STRATEGIES = [*_USUAL, *_ROBUST]
SGD, ADAMW = OPTIMIZERS = ["sgd", "adamw"]
CONSTANT, COSINE = SCHEDULES = ["constant", "cosine"]

# The most by which a step of adamw may move a score, in nats.
NATS_OF_A_STEP = 0.3

# Measured on digits, see docs/train.md.
ADAPTER_STEPS = {SGD: 0.01, ADAMW: 0.001}

_BOTH = Acts.CLIENT | Acts.SERVER
_CONTINUABLE = Beside("clients hold the samples", lambda run: run.method.chosen.may_train)
_TRAINED = Beside("continue is not none", lambda run: run.training.follows)
_TUNED = Beside("continue is fine-tune", lambda run: run.training.kind == FINE_TUNE)
_ADAPTED = Beside("continue is adapters", lambda run: run.training.kind == ADAPTERS)
_STEPPED = Beside(
    "the server's strategy takes steps",
    lambda run: run.training.follows and run.training.strategy in (FEDAVGM, FEDADAM, FEDYOGI),
)


def _with_strategy(*names: str) -> Beside:
    words = f"continue-strategy is {' or '.join(names)}"
    return Beside(words, lambda run: run.training.follows and run.training.strategy in names)


@dataclass(frozen=True)
class TrainingSection(Section):
    """What follows the closed form; each field says what it means."""

    NAME: ClassVar[str] = "training"

    kind: str = key(
        NO_TRAINING,
        "What trains after the closed form: none, linear-probe (the head), adapters (and adapters) "
        "or fine-tune (all).",
        _BOTH,
        Changes.RESULT,
        name="continue",
        choices=lambda: CONTINUATIONS,
        beside=_CONTINUABLE,
        refused_without_effect=True,
    )
    rounds: int = key(
        20,
        "Rounds of training.",
        _BOTH,
        Changes.RESULT,
        name="continue-rounds",
        numbers=AT_LEAST_1,
        beside=_TRAINED,
    )
    strategy: str = key(
        FEDAVG,
        "Flower's strategy that runs them.",
        _BOTH,
        Changes.RESULT,
        name="continue-strategy",
        choices=lambda: STRATEGIES,
        beside=_TRAINED,
    )
    fraction: float = key(
        1.0,
        "Share of all clients that train in a round, drawn anew for each.",
        Acts.SERVER,
        Changes.RESULT,
        name="continue-fraction",
        numbers=SHARE,
        beside=_TRAINED,
    )
    local_epochs: int = key(
        1,
        "Passes over a client's samples in a round.",
        Acts.CLIENT,
        Changes.RESULT,
        numbers=AT_LEAST_1,
        beside=_TRAINED,
    )
    optimizer: str = key(
        SGD, "The clients' optimizer.", Acts.CLIENT, Changes.RESULT, choices=lambda: OPTIMIZERS, beside=_TRAINED
    )
    learning_rate: float = key(
        0.0,
        "Step size of the head; 0 for one that follows from the features' mean squared length.",
        _BOTH,
        Changes.RESULT,
        numbers=AT_LEAST_0,
        beside=_TRAINED,
    )
    backbone_learning_rate: float = key(
        0.001, "Step size of the backbone.", Acts.CLIENT, Changes.RESULT, numbers=ABOVE_0, beside=_TUNED
    )
    adapter_rank: int = key(
        8,
        "Rank of the adapters; a layer with fewer inputs or outputs has as many.",
        _BOTH,
        Changes.RESULT,
        numbers=AT_LEAST_1,
        beside=_ADAPTED,
    )
    adapter_alpha: float = key(
        16.0,
        "What an adapter's product of two matrices is multiplied by, times its rank.",
        _BOTH,
        Changes.RESULT,
        numbers=ABOVE_0,
        beside=_ADAPTED,
    )
    adapter_layers: str = key(
        "",
        "Which layers are adapted, as a regular expression for the whole names of the backbone's modules; empty "
        "for those that suit it.",
        Acts.SERVER,
        Changes.RESULT,
        check=check_layers,
        beside=_ADAPTED,
    )
    adapter_learning_rate: float = key(
        0.0,
        "Step size of the adapters; 0 for one that suits the optimizer.",
        Acts.CLIENT,
        Changes.RESULT,
        numbers=AT_LEAST_0,
        beside=_ADAPTED,
    )
    learning_rate_schedule: str = key(
        CONSTANT,
        "How both step sizes go over the rounds.",
        Acts.CLIENT,
        Changes.RESULT,
        choices=lambda: SCHEDULES,
        beside=_TRAINED,
    )
    weight_decay: float = key(
        0.0,
        "Weight decay of the clients' optimizer.",
        Acts.CLIENT,
        Changes.RESULT,
        numbers=AT_LEAST_0,
        beside=_TRAINED,
    )
    gradient_clip: float = key(
        10.0,
        "Largest norm of a step's gradient; 0 for any.",
        Acts.CLIENT,
        Changes.RESULT,
        numbers=AT_LEAST_0,
        beside=_TRAINED,
    )
    server_learning_rate: float = key(
        0.0,
        "Step size of fedavgm, fedadam and fedyogi; 0 for the strategy's own default here.",
        Acts.SERVER,
        Changes.RESULT,
        numbers=AT_LEAST_0,
        beside=_STEPPED,
    )
    proximal_mu: float = key(
        0.0, "Weight of fedprox's term.", _BOTH, Changes.RESULT, numbers=AT_LEAST_0, beside=_with_strategy(FEDPROX)
    )
    malicious_clients: int = key(
        0,
        "Clients of a round, at most, whose networks krum and bulyan are to withstand.",
        Acts.SERVER,
        Changes.RESULT,
        numbers=AT_LEAST_0,
        beside=_with_strategy(KRUM, BULYAN),
        refused_without_effect=True,
    )
    trimmed_share: float = key(
        0.2,
        "Share of the clients that trimmed-mean leaves out at either end of each weight, below one half.",
        Acts.SERVER,
        Changes.RESULT,
        numbers=BELOW_HALF,
        beside=_with_strategy(TRIMMED_MEAN),
        refused_without_effect=True,
    )
    fairness: float = key(
        0.1,
        "The q of q-fedavg: how much more clients of a high loss count; 0 for all the same.",
        Acts.SERVER,
        Changes.RESULT,
        numbers=AT_LEAST_0,
        beside=_with_strategy(Q_FEDAVG),
        refused_without_effect=True,
    )
    solves_anew: bool = key(
        False,
        "Whether one more round asks all clients for their statistics anew, of the trained backbone's features, "
        "and the classifier is solved of these.",
        Acts.SERVER,
        Changes.RESULT,
        name="continue-resolve",
        beside=_TUNED,
    )

    @property
    def follows(self) -> bool:
        """Whether there is any training."""
        return self.kind != NO_TRAINING

    @property
    def trains_backbone(self) -> bool:
        """Whether the backbone trains too, be it all of it or adapters."""
        return self.kind in (ADAPTERS, FINE_TUNE)

    def adapters(self, seed: int) -> AdapterOptions | None:
        """Give what trains beside the frozen backbone; None where it is no adapters."""
        if self.kind != ADAPTERS:
            return None
        return AdapterOptions(self.adapter_rank, self.adapter_alpha, self.adapter_layers, seed)

    @property
    def step_of_backbone(self) -> float:
        """The clients' step size of what trains beside the head."""
        if self.kind != ADAPTERS:
            return self.backbone_learning_rate
        return self.adapter_learning_rate or ADAPTER_STEPS[self.optimizer]

    @property
    def averages(self) -> bool:
        """Whether the server's strategy averages what clients train, so that a merge may take its place."""
        return self.strategy in (FEDAVG, FEDPROX)

    @property
    def adapter_scaling(self) -> float:
        """What the product of an adapter's two matrices is multiplied by."""
        return self.adapter_alpha / self.adapter_rank if self.kind == ADAPTERS else 1.0

    def step_of_head(self, squared_length: float, num_classes: int, feature_dim: int) -> float:
        """Give the clients' step size of the head.

        Parameters
        ----------
        squared_length : float
            Mean squared length of the feature vectors.
        num_classes, feature_dim : int
            Number of classes C and dimension d.

        Returns
        -------
        float
            As the key says, or what follows (:mod:`fedcof.heads.step_size`).
        """
        if self.learning_rate:
            return self.learning_rate
        if self.optimizer == ADAMW:
            return sign_step(squared_length, feature_dim, NATS_OF_A_STEP)
        return gradient_step(squared_length, num_classes)

    def check_together(self) -> None:
        """Check that fedprox has its weight, and nobody else, and q-fedavg its step; raises UserError."""
        if self.follows and (self.strategy == FEDPROX) != (self.proximal_mu > 0):
            raise UserError(
                f"The key proximal-mu is {self.proximal_mu:g} with the strategy {self.strategy}, but it "
                "is fedprox's, which needs it above 0: set both or neither."
            )
        if self.follows and self.strategy == Q_FEDAVG and not self.learning_rate:
            raise UserError(
                "The strategy q-fedavg takes the clients' step size for the curvature of their losses, so it "
                "cannot be left to them: set learning-rate, for example to 0.01."
            )
