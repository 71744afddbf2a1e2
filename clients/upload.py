"""What becomes of a client's samples before they are sent: as many, as private, as short as was asked for."""

from __future__ import annotations

from clients.policy import NodePolicy
from clients.reply import bytes_of_reply, longest_node_record, reply_with
from fedcof.methods.chain import Chain, Encode, Measure, Outgoing, Withhold
from fedcof.methods.method import FederatedMethod, Samples
from fedcof.privacy.noise import NoiseSource, SecretNoise, SeededNoise
from fedcof.run.config import RunConfig
from fedcof.wire.arrays import Arrays


def upload_of(config: RunConfig, client: int, samples: Samples, policy: NodePolicy | None = None) -> Outgoing:
    """Make the upload that a run asks for.

    Parameters
    ----------
    config : RunConfig
        The run.
    client : int
        Client number.
    samples : Samples
        What the client has.
    policy : NodePolicy, optional
        What the node's owner allows, if it has one.

    Returns
    -------
    Outgoing
        Ready to be sent.

    Raises
    ------
    UserError
        If a budget is too small for the client's classes, or a number does not fit the encoding.
    """
    method = config.method.chosen
    assert isinstance(method, FederatedMethod)
    privacy = method.promise(config.privacy)

    said = longest_node_record(config) if policy else None

    def message_bytes(arrays: Arrays, tag: str) -> int:
        return bytes_of_reply(reply_with(arrays, tag, said))

    def source() -> NoiseSource:
        # The server knows the seed, so it must not decide where the data is somebody's own.
        return SecretNoise() if config.data.on_nodes else SeededNoise(config.data.seed, client)

    return Chain(
        (
            Measure(method, samples.num_classes, privacy, source),
            Withhold(
                method,
                samples.num_classes,
                smallest_count=policy.smallest_count if policy else 1,
                private=privacy is not None,
            ),
            Encode(
                method,
                config.writing,
                config.data.num_clients,
                samples.num_classes,
                most_groups=policy.largest_groups if policy else None,
                message_bytes=message_bytes,
            ),
        )
    ).send(samples)


def samples_told(config: RunConfig, upload: Outgoing) -> int:
    """Count the samples that a client says it has: with privacy, as many as the noisy counts say.

    Parameters
    ----------
    config : RunConfig
        The run.
    upload : Outgoing
        What it sends.

    Returns
    -------
    int
        Their number.
    """
    if config.privacy.epsilon and upload.statistics is not None:
        return int(upload.statistics.counts.sum())
    return len(upload.samples.labels)
