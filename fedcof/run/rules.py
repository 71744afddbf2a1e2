"""What sections of a run-config have to agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedcof.data.section import DataSection
from fedcof.embedding.clip_names import is_open_clip
from fedcof.embedding.section import BY_CLIP, FULL, ISO, NO_TRANSFORM, EmbeddingSection
from fedcof.errors import UserError
from fedcof.keys import Key, must_be
from fedcof.merging.section import MergingSection
from fedcof.methods.section import MethodSection
from fedcof.privacy.section import PrivacySection
from fedcof.run.execution import ExecutionSection
from fedcof.run.participation import ParticipationSection
from fedcof.run.training import BULYAN, KRUM, NO_TRAINING, TrainingSection
from fedcof.statistics.kinds import CLASS_MEANS
from fedcof.wire.registry import CODED, encodings_of
from fedcof.wire.section import WireSection

if TYPE_CHECKING:
    from fedcof.run.config import RunConfig


def check_sections_together(config: RunConfig) -> None:
    """Check a run-config's sections beside one another.

    Parameters
    ----------
    config : RunConfig
        Each of its sections holds by itself.

    Raises
    ------
    UserError
        For the first rule that does not hold.
    """
    _check_encoding(config)
    _check_names(config)
    _check_projection(config)
    _check_nodes(config)
    _check_training(config)
    _check_strategy(config)
    if config.data.in_steps:
        _check_steps(config)
    if config.privacy.epsilon:
        _check_privacy(config)


def _check_encoding(config: RunConfig) -> None:
    kind, encoding = config.method.kind, config.wire.encoding
    known = encodings_of(kind)
    if kind and len(known) > 1 and encoding not in known:
        raise UserError(
            f"The encoding {encoding} cannot write what {config.method.name} sends ({kind}): choose one of "
            f"{', '.join(known)}."
        )


def _check_names(config: RunConfig) -> None:
    embedding = config.embedding
    if embedding.text_prior == BY_CLIP and not (is_open_clip(embedding.backbone) or "_clip_" in embedding.backbone):
        raise UserError(
            f"The backbone {embedding.backbone} has no text tower that could read class names: set text-prior to "
            "names, or backbone to a CLIP model."
        )
    if embedding.text_prior == BY_CLIP and embedding.clip_projection != FULL:
        raise UserError(
            f"Texts are compared with features after CLIP's projector, but clip-projection is "
            f"{embedding.clip_projection}: set it to {FULL}, or text-prior to none."
        )
    # What sends statistics does not live on names alone, which is known without importing torch.
    if config.method.kind or embedding.has_prior:
        return
    method = config.method.chosen
    if method.takes_prior and not method.takes_head:
        raise UserError(
            f"The method {config.method.name} makes its classifier of class names: set text-prior to names or clip."
        )


def _check_projection(config: RunConfig) -> None:
    embedding, kind = config.embedding, config.method.kind
    if embedding.clip_projection != ISO:
        return
    if embedding.feature_transform != NO_TRANSFORM:
        transform = EmbeddingSection.key_of("feature_transform")
        raise must_be(transform.name, embedding.feature_transform, f"none where clip-projection is {ISO}")
    if config.privacy.epsilon or config.method.diagnose or kind not in ("", CLASS_MEANS):
        raise UserError(
            "IsoCLIP's projection is for class means without privacy noise, and is not diagnosed: set "
            f"clip-projection to {FULL} with an epsilon, diagnose=true, or the method {config.method.name}."
        )


def _check_nodes(config: RunConfig) -> None:
    if not config.data.on_nodes:
        return
    if not (config.method.kind or config.training.follows):
        raise UserError(
            f"The {config.method.name} needs all images in one place, but with the dataset nodes nobody has them."
        )
    if config.method.diagnose:
        raise UserError(
            "The key diagnose compares with all images in one place, but with the dataset nodes nobody has "
            "them: set it to false."
        )


def _check_training(config: RunConfig) -> None:
    if not config.method.kind and config.method.chosen.needs_training and not config.training.follows:
        raise UserError(
            f"The method {config.method.name} is a head to start training from: set continue to linear-probe, "
            "adapters or fine-tune."
        )
    if config.training.solves_anew and not (config.training.trains_backbone and config.method.kind):
        solves_anew = TrainingSection.key_of("solves_anew")
        raise must_be(
            solves_anew.name, True, "false where no backbone trains, or without a method's statistics to solve of"
        )
    if config.training.trains_backbone and config.data.is_precomputed:
        raise UserError(
            f"Training with continue={config.training.kind} needs images, but there are features of "
            f"{config.data.encoder or config.data.dataset!r}: set continue to linear-probe, or run on images."
        )


def _check_strategy(config: RunConfig) -> None:
    training, clients = config.training, config.clients_in_a_round
    if not training.follows:
        return
    most = {KRUM: (clients - 3) // 2, BULYAN: (clients - 3) // 4}.get(training.strategy, training.malicious_clients)
    if training.malicious_clients > most or most < 0:
        raise UserError(
            f"The strategy {training.strategy} withstands {max(most, 0)} malicious clients of {clients} in a "
            f"round, but malicious-clients is {training.malicious_clients}: lower it, or ask more clients with "
            "continue-fraction."
        )
    merge = MergingSection.key_of("rule")
    if not training.averages and config.merging.rule != merge.default:
        raise UserError(
            f"The merge {config.merging.rule} takes the place of an average, but the strategy "
            f"{training.strategy} takes none: set continue-strategy to fedavg or fedprox."
        )


def _check_steps(config: RunConfig) -> None:
    """Refuse what is of one moment, or counts on every client being asked once."""
    known = DataSection.key_of("schedule" if config.data.schedule else "class_steps")
    if config.data.on_nodes:
        raise UserError(
            f"The key {known.name} is {config.value(known)!r}, but nodes with data of their own come, go and have "
            "new classes when they do: set it for a simulation."
        )
    refused: list[tuple[Key, bool, str]] = [
        (PrivacySection.key_of("epsilon"), bool(config.privacy.epsilon), "0"),
        (TrainingSection.key_of("kind"), config.training.follows, NO_TRAINING),
        (ParticipationSection.key_of("fraction"), config.participation.fraction < 1, "1"),
        (ParticipationSection.key_of("init_rounds"), config.participation.init_rounds > 1, "1"),
        (EmbeddingSection.key_of("text_prior"), config.embedding.has_prior, "none"),
        (MethodSection.key_of("diagnose"), config.method.diagnose, "false"),
        (ExecutionSection.key_of("keep_uploads"), config.execution.keep_uploads, "false"),
    ]
    for other, holds, expected in refused:
        if holds:
            raise must_be(
                other.name, config.value(other), f"{expected} with {known.name}, over whose steps it has no meaning"
            )


def _check_privacy(config: RunConfig) -> None:
    """Refuse what depends on samples, or lets one sample move others, in a way that the noise does not cover."""
    if config.training.follows:
        raise _refused_with_an_epsilon(config, TrainingSection.key_of("kind"), NO_TRAINING)
    if config.data.client_test_share:
        raise _refused_with_an_epsilon(config, DataSection.key_of("client_test_share"), "0")
    for attribute in ("robust", "most_samples_per_client"):
        known = MethodSection.key_of(attribute)
        # Noise is most of what a private mean is off by.
        if config.value(known) != known.default:
            raise _refused_with_an_epsilon(config, known, str(known.default))
    if not config.wire.groups:
        raise _refused_with_an_epsilon(config, WireSection.key_of("groups"), "at least 1")
    if config.wire.is_given_bytes or config.wire.encoding == CODED:
        raise UserError(
            "The encoding coded and a budget in bytes look at the samples to choose their step, which the "
            "noise of an epsilon does not cover: choose another encoding, or no epsilon."
        )


def _refused_with_an_epsilon(config: RunConfig, known: Key, expected: str) -> UserError:
    return must_be(known.name, config.value(known), f"{expected} with an epsilon")
