"""A run with clients: collect and solve, train on if asked, evaluate after every round, keep checkpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from safetensors.torch import save_file
from torch import Tensor, nn

from fedcof.covariance.backbone_scores import BackboneScores
from fedcof.covariance.diagnostic import CovarianceDiagnostic
from fedcof.data.problem import backbone_of, labels_of, problem_of
from fedcof.files import whole_file
from fedcof.heads.adapter_options import AdapterOptions
from fedcof.heads.classifier import Classifier
from fedcof.heads.trainable import Network
from fedcof.methods.base import backbone_scores, shrinkage_used
from fedcof.run.config import RunConfig
from fedcof.run.results import BACKBONE_FILE_NAME, HEAD_FILE_NAME, START, TRAIN, NodeResult, RoundResult
from fedcof.run.steps import StepResult
from server.callbacks import Callback, Callbacks
from server.checkpoint import Checkpoint, load_checkpoint, restore_strategy, strategy_state
from server.continuation import Continuation
from server.diagnosis import diagnose
from server.evaluation import rightly_classified, share
from server.federation import Federation
from server.keeping import Keeper, discard, store_of
from server.metrics import ACCURACY
from server.node_rules import node_rules
from server.one_shot import OneShotStrategy
from server.records import network_to_arrays
from server.run_files import BestNetwork, Checkpoints
from server.run_strategy import strategy_of
from server.solve_anew import SolvingAnew, solve_anew
from server.step_size import with_step_of_head
from server.training_strategy import WORST_TENTH, training_strategy

HEAD_ARRAY = "head.weight"

logger = getLogger("flwr")


class FederatedRun:
    """One run of a method that asks clients.

    Parameters
    ----------
    federation : Federation
        The clients.
    config : RunConfig
        What to run.
    folder : Path
        Where its checkpoints and networks go.
    callbacks : sequence of Callback
        Told of replies and rounds, once the run has kept what it needs to go on.

    Attributes
    ----------
    ledger : Ledger
        Bytes of all messages.
    rounds : list of RoundResult
        How it has gone.
    steps : list of StepResult
        The same of a run over several steps, see :mod:`server.scheduled_run`.
    rejected : dict of int to str
        Why clients' statistics were left out.
    clients, expected_uplink_bytes : int
        Clients whose statistics are in the classifier; and the bytes of all accepted uploads' numbers alone.
    seconds : float
        Time that it took, over all parts of a run that was gone on with.
    shrinkage : float or None
        How much the covariance was shrunk.
    backbone_scores : BackboneScores
        What the uploads have shown of the features.
    network : Network or None
        What was trained.
    nodes : list of NodeResult
        What became of each node, where nodes have data of their own.
    strategy : OneShotStrategy or None
        What took the clients' statistics in; None where none were asked for, or in an earlier part of the run.
    anew : SolvingAnew or None
        What took them in after all training, if that was asked for: the last classifier is its.
    """

    def __init__(
        self, federation: Federation, config: RunConfig, folder: Path, callbacks: Sequence[Callback] = ()
    ) -> None:
        self.config, self.folder = config, folder
        self.ledger = federation.new_ledger()
        self.rounds: list[RoundResult] = []
        self.steps: list[StepResult] = []
        self.rejected: dict[int, str] = {}
        self.clients = 0
        self.expected_uplink_bytes = 0
        self.seconds = 0.0
        self.shrinkage: float | None = None
        self.backbone_scores = BackboneScores()
        self.network: Network | None = None
        self.nodes: list[NodeResult] = []
        self.strategy: OneShotStrategy | None = None
        self.anew: SolvingAnew | None = None
        self._federation = federation
        self._callbacks = Callbacks([BestNetwork(folder), Checkpoints(folder), *callbacks])
        self._problem = problem_of(config)
        self._has_test_samples = len(labels_of(config, "test")) > 0
        self._present = torch.ones(self._problem.num_classes, dtype=torch.bool)
        self._continuation: Continuation | None = None
        self._squared_length = 0.0
        self._started = time.perf_counter()

    def execute(self) -> Classifier:
        """Run, from the last checkpoint if there is one.

        Returns
        -------
        Classifier
            The last one.

        Raises
        ------
        UserError
            If too few clients answer with something that can be used, or the checkpoint is another run's.
        """
        checkpoint = load_checkpoint(self.folder, self.config)
        if self.config.training.follows:
            sizes = self._problem.num_classes, self._problem.feature_dim
            self.network = Network(*sizes, self._backbone(), self._adapters())
            self._continuation = self._new_continuation(checkpoint)
        if checkpoint:
            self._take_up(checkpoint)
        if checkpoint or not self.config.method.chosen.asks_clients:
            self._train_only(checkpoint)
        else:
            self._collect_and_train()
        if self.config.training.solves_anew:
            self._solve_anew()
        self.seconds += time.perf_counter() - self._started
        return self._classifier()

    @property
    def best(self) -> RoundResult | None:
        """The first of the rounds since training began with the highest known accuracy; None without any."""
        known = [r for r in self.rounds if r.phase != START and r.accuracy is not None]
        return max(known, key=lambda r: r.accuracy or 0.0, default=None)

    def class_means(self) -> Tensor | None:
        """Average the uploads' class means (C, d), where the last classifier is the closed form of them."""
        if self.anew:
            return self.anew.aggregator.class_means()
        if self.network is not None or self.strategy is None:
            return None
        return self.strategy.aggregator.class_means()

    def diagnosis(self) -> CovarianceDiagnostic | None:
        """Put the covariance beside the oracle's, where that was asked for and the uploads are at hand."""
        if not self.config.method.diagnose or self.strategy is None:
            return None
        return diagnose(self.strategy.aggregator, self.config)

    def _collect_and_train(self) -> None:
        backbone = self._backbone()
        self.strategy = strategy_of(
            self.config,
            self._callbacks.on_reply,
            self._continuation,
            backbone,
            node_rules(self._federation, self.config, self.folder),
            self._keeper(),
        )
        training = self.config.training.rounds if self._continuation else 0
        self.strategy.start(
            self._federation, num_rounds=self.strategy.init_rounds + training, **self._common_arguments()
        )

    def _keeper(self) -> Keeper | None:
        kept = self.config.execution.keep_uploads or self.config.training.solves_anew
        return Keeper(store_of(self.folder, self.config)) if kept and not self.config.data.on_nodes else None

    def _train_only(self, checkpoint: Checkpoint | None) -> None:
        assert self._continuation is not None
        assert self.network is not None
        done = checkpoint.rounds_done if checkpoint else 0
        if not checkpoint:
            self.network.draw_head(self.config.data.seed)
        start = network_to_arrays(self.network)
        if done < self.config.training.rounds:
            rounds = self.config.training.rounds - done
            self._continuation.start(self._federation, start, rounds, **self._common_arguments())

    def _common_arguments(self) -> dict[str, Any]:
        told = ConfigRecord({**self.config.for_message()})
        sizes = self._problem.num_classes, self._problem.feature_dim
        return {
            "timeout": self.config.execution.reply_timeout,
            "train_config": with_step_of_head(told, self._squared_length, *sizes),
            "evaluate_config": ConfigRecord({**self.config.for_message()}),
            "evaluate_fn": self._after_round,
        }

    def _new_continuation(self, checkpoint: Checkpoint | None) -> Continuation:
        strategy = training_strategy(self.config)
        if checkpoint:
            restore_strategy(strategy, checkpoint.strategy)
        return Continuation(
            strategy,
            self.config.data.seed,
            self.config.participation.quorum,
            checkpoint.rounds_done if checkpoint else 0,
            evaluate_always=self.config.data.client_test_share > 0 or not self._has_test_samples,
            evaluate_finally=self.config.participation.broadcast and not self.config.training.solves_anew,
            on_reply=self._callbacks.on_reply,
            needs_fisher=self.config.merging.needs_fisher,
            names=self._federation.names,
        )

    def _backbone(self) -> nn.Module | None:
        return backbone_of(self.config).module if self.config.training.trains_backbone else None

    def _adapters(self) -> AdapterOptions | None:
        return self.config.training.adapters(self.config.data.seed)

    def _after_round(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Evaluate on the test split: nothing before the first round, then a classifier, then a network."""
        if HEAD_ARRAY not in arrays:
            return self._after_collecting() if server_round else None
        assert self._continuation is not None
        assert self.network is not None
        self.network.load_arrays({name: array.numpy() for name, array in arrays.items()})
        accuracy = self._accuracy(self._classifier(), self._continuation.evaluate_metrics)
        if self._continuation.train_metrics is None:
            # Training is about to begin, or to go on.
            if not self.rounds:
                self._end_round(RoundResult(0, 0, accuracy, 0, 0))
        else:
            self._after_training(accuracy)
        return _as_record(accuracy)

    def _after_collecting(self) -> MetricRecord:
        strategy = self.strategy
        assert strategy is not None
        self._present = strategy.solved().present
        self.expected_uplink_bytes = strategy.expected_uplink_bytes
        self._squared_length = strategy.squared_length()
        self._note(strategy)
        accuracy = self._accuracy(strategy.solved(), strategy.client_metrics)
        number = len(self.rounds) + 1
        self._end_round(RoundResult(number, strategy.num_accepted, accuracy, *self._bytes_so_far()))
        return _as_record(accuracy)

    def _note(self, strategy: OneShotStrategy) -> None:
        self.clients, self.rejected = strategy.num_accepted, strategy.rejected
        self.shrinkage = shrinkage_used(strategy.aggregator)
        self.backbone_scores = backbone_scores(strategy.aggregator)
        self.nodes = strategy.intake.results() if strategy.intake else []

    def _solve_anew(self) -> None:
        """Have the classifier solved of the trained backbone's features; broken off, a run begins this again."""
        assert self.network is not None
        number = self.rounds[-1].round
        rules = node_rules(self._federation, self.config, self.folder)
        self.anew, result = solve_anew(
            self._federation, self.config, self.network, number, self.folder, rules, self._callbacks.on_reply
        )
        if not self.config.execution.keep_uploads and not self.config.data.on_nodes:
            discard(store_of(self.folder, self.config))
        self.expected_uplink_bytes += self.anew.expected_uplink_bytes
        self._note(self.anew)
        self._end_round(result)

    def _accuracy(self, classifier: Classifier, client_metrics: MetricRecord | None) -> float | None:
        """Evaluate on the server's test split, or where it has none take what the clients found."""
        if self._has_test_samples:
            return share(rightly_classified(classifier, self.config, self.network))
        return _number((client_metrics or MetricRecord()).get(ACCURACY))

    def _after_training(self, accuracy: float | None) -> None:
        continuation = self._continuation
        assert continuation is not None
        self.expected_uplink_bytes += continuation.accepted_bytes
        metrics = continuation.evaluate_metrics or MetricRecord()
        loss = (continuation.train_metrics or MetricRecord()).get("loss")
        result = RoundResult(
            self.rounds[-1].round + 1,
            continuation.num_accepted,
            accuracy,
            *self._bytes_so_far(),
            phase=TRAIN,
            loss=_number(loss),
            client_accuracy=_number(metrics.get(ACCURACY)),
            worst_tenth_accuracy=_number(metrics.get(WORST_TENTH)),
        )
        self._end_round(result)

    def _end_round(self, result: RoundResult) -> None:
        self.rounds.append(result)
        self._callbacks.on_round_end(result, self)

    def save_networks(self, folder: Path) -> None:
        """Write the head as it is now, and the backbone if it was trained, as timm's state dict without adapters.

        Parameters
        ----------
        folder : Path
            Made if missing.
        """
        self._classifier().save(folder / HEAD_FILE_NAME)
        if self.network is not None and self.config.training.trains_backbone:
            state: dict[str, Tensor] = self.network.plain_backbone().state_dict()
            with whole_file(folder / BACKBONE_FILE_NAME) as unfinished:
                save_file({name: tensor.contiguous() for name, tensor in state.items()}, unfinished)

    def _classifier(self) -> Classifier:
        names = self._problem.class_names
        if self.anew:
            return self.anew.solved().named(names)
        if self.network is not None:
            return self.network.classifier(self._present, names)
        assert self.strategy is not None
        return self.strategy.solved().named(names)

    def _bytes_so_far(self) -> tuple[int, int]:
        return self.ledger.uplink_bytes, self.ledger.downlink_bytes

    def checkpoint(self) -> Checkpoint:
        """Give all that the next round depends on, once there was one of training."""
        assert self._continuation is not None
        assert self.network is not None
        course = {
            "rounds": [asdict(entry) for entry in self.rounds],
            "ledger": self.ledger.to_rows(),
            "rejected": {str(client): reason for client, reason in self.rejected.items()},
            "clients": self.clients,
            "nodes": [asdict(node) for node in self.nodes],
            "expected_uplink_bytes": self.expected_uplink_bytes,
            "shrinkage": self.shrinkage,
            "backbone_scores": asdict(self.backbone_scores),
            "squared_length": self._squared_length,
            "seconds": self.seconds + time.perf_counter() - self._started,
        }
        return Checkpoint(
            config=self.config.to_mapping(),
            rounds_done=sum(entry.phase == TRAIN for entry in self.rounds),
            network=self.network.to_arrays(),
            present=self._present.tolist(),
            strategy=strategy_state(self._continuation.strategy),
            course=course,
        )

    def _take_up(self, checkpoint: Checkpoint) -> None:
        assert self.network is not None
        self.network.load_arrays(checkpoint.network)
        self._present = torch.tensor(checkpoint.present)
        course = checkpoint.course
        self.rounds = [RoundResult(**entry) for entry in course["rounds"]]
        self.ledger.add_rows(course["ledger"])
        self.rejected = {int(client): reason for client, reason in course["rejected"].items()}
        self.clients, self.expected_uplink_bytes = course["clients"], course["expected_uplink_bytes"]
        self.seconds, self.shrinkage = course["seconds"], course.get("shrinkage")
        self.backbone_scores = BackboneScores(**course.get("backbone_scores", {}))
        self._squared_length = course.get("squared_length", 0.0)
        self.nodes = [NodeResult(**node) for node in course["nodes"]]
        self._callbacks.on_resume(tuple(self.rounds))
        logger.info("Going on after round %d of training.", checkpoint.rounds_done)


def _as_record(accuracy: float | None) -> MetricRecord:
    return MetricRecord() if accuracy is None else MetricRecord({"accuracy": accuracy})


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
