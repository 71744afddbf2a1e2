"""What a run's uploads must keep to, where its nodes have data of their own."""

from __future__ import annotations

from pathlib import Path

from fedcof.data.problem import fingerprint_of, problem_of
from fedcof.methods.chain import most_rows
from fedcof.run.config import RunConfig
from server.federation import Federation
from server.intake import NodeRules
from server.upload_store import UploadStore


def node_rules(federation: Federation, config: RunConfig, folder: Path) -> NodeRules | None:
    """Make the rules of a run.

    Parameters
    ----------
    federation : Federation
        The clients.
    config : RunConfig
        The run.
    folder : Path
        Where its uploads are kept.

    Returns
    -------
    NodeRules or None
        None of a simulation.
    """
    if not config.data.on_nodes:
        return None
    fingerprint, problem = fingerprint_of(config), problem_of(config)
    rows = most_rows(config.writing, problem.num_classes, problem.feature_dim)
    return NodeRules(
        store=UploadStore(folder, config, fingerprint),
        names=federation.names,
        fingerprint=fingerprint,
        is_declared=config.data.is_precomputed,
        most_rows=rows,
        expected=config.data.num_clients,
        left_out=federation.left_out,
        screened=not config.privacy.epsilon,
        data_states=federation.data_states,
        # The rows' or the Gram matrix's, in float64, and as much again.
        most_bytes=2 * 8 * problem.feature_dim * (rows + problem.num_classes + problem.feature_dim),
    )
