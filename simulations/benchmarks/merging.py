"""What merges are worth: one federation, trained from the same start, merged by every rule; accuracy and bytes.

The clients and the server are those of a simulation, in one process and without Flower's transport; the ledger
counts what Flower would carry. What clients train in the first round is trained once for all rules.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from flwr.app import RecordDict

from clients.app import app as client_app
from fedcof.data.section import DataSection
from fedcof.errors import UserError
from fedcof.merging.registry import MERGES
from fedcof.merging.section import MergingSection
from fedcof.methods.section import MethodSection
from fedcof.run.config import RunConfig
from fedcof.run.participation import ParticipationSection
from fedcof.run.protocol import CLIENTS, CONFIG, HOSTED, SERVER_ROUND
from fedcof.run.training import ADAPTERS, FINE_TUNE, LINEAR_PROBE, TrainingSection
from server.federation import Federation
from server.run import execute
from simulations.benchmarks.in_process import InProcessGrid
from simulations.scenario import configure

KINDS = {"head": LINEAR_PROBE, "adapters": ADAPTERS, "all": FINE_TUNE}


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes
    ----------
    start, trained, merge : str
        Method that training starts from, what trains, and the rule.
    seed : int
        The run's.
    accuracies : list of float
        On the test split after round 0 (the start), 1, 2, ...
    bytes_of_round : float
        Up and down in a round of training, without evaluations, by the ledger.
    refused : str
        Why the run was not made.
    """

    start: str
    trained: str
    merge: str
    seed: int
    accuracies: list[float | None]
    bytes_of_round: float = 0.0
    refused: str = ""


def measured(
    scenario: str, settings: list[str], starts: list[str], kinds: list[str], merges: list[str], seeds: list[int]
) -> Iterator[Measured]:
    """Run every combination.

    Parameters
    ----------
    scenario, settings
        See :func:`simulations.scenario.configure`.
    starts, kinds, merges : list of str
        Methods, of ``head``, ``adapters`` and ``all``, and rules; ``RULE@SCALE`` sets the scale.
    seeds : list of int
        Seeds.

    Yields
    ------
    Measured
        In the order of seeds, starts, kinds and merges.
    """
    for seed, start, kind in product(seeds, starts, kinds):
        federation: Federation | None = None
        for merge in merges:
            try:
                config = _config(scenario, settings, start, kind, merge, seed)
                federation = federation or Federation(
                    InProcessGrid(client_app, _first_round), config.data.num_clients
                )
                yield _run(federation, config, start, kind, merge)
            except UserError as error:
                yield Measured(start, kind, merge, seed, [], refused=str(error))


def _config(scenario: str, settings: list[str], start: str, kind: str, merge: str, seed: int) -> RunConfig:
    rule, _, scale = merge.partition("@")
    rule, _, core = rule.partition("/")
    config = configure(scenario, settings)
    chosen = {
        **MethodSection.named(name=start),
        **DataSection.named(seed=seed),
        **TrainingSection.named(kind=KINDS[kind]),
        **MergingSection.named(rule=rule),
        **ParticipationSection.named(broadcast=False),
    }
    chosen |= MergingSection.named(scale=float(scale)) if scale else {}
    chosen |= MergingSection.named(core_rule=core) if core else {}
    return RunConfig.from_mapping({**config.to_mapping(), **chosen})


def _run(federation: Federation, config: RunConfig, start: str, kind: str, merge: str) -> Measured:
    with TemporaryDirectory() as folder:
        result = execute(federation, config, Path(folder), "")
    rounds = result.rounds or []
    accuracies = [one.accuracy for one in rounds if one.phase == "train"]
    trained = [traffic for occasion, traffic in federation.ledger.entries() if occasion.message == "train"]
    total = sum(traffic.uplink + traffic.downlink for traffic in trained)
    before = next((one.accuracy for one in reversed(rounds) if one.phase != "train"), None)
    return Measured(start, kind, merge, config.data.seed, [before, *accuracies], total / max(len(accuracies), 1))


def _first_round(content: RecordDict) -> object:
    """Give what the clients' training in a first round depends on, besides the network."""
    said = dict(content.config_records.get(CONFIG, {}))
    if said.get(SERVER_ROUND) != 1:
        return None
    rule = MergingSection.key_of("rule").name
    rounds = TrainingSection.key_of("rounds").name
    fisher = MERGES.get(str(said[rule])).NEEDS_FISHER
    kept = {name: value for name, value in said.items() if name not in (rule, rounds)}
    return [kept, fisher, list(content.config_records[HOSTED][CLIENTS])]  # type: ignore[arg-type]


def main() -> None:
    """Measure what the arguments name and write a line of JSON for each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", nargs="?", default="digits")
    parser.add_argument("-c", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--starts", default="fedcof")
    parser.add_argument("--kinds", default="adapters,all", help="of head, adapters and all")
    parser.add_argument("--merges", default=",".join(MERGES.names()), help="RULE@SCALE sets the scale")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("-v", action="store_true", dest="verbose")
    asked = parser.parse_args()
    if not asked.verbose:
        logging.getLogger("flwr").setLevel(logging.ERROR)
    starts, kinds, merges = (getattr(asked, name).split(",") for name in ("starts", "kinds", "merges"))
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    for one in measured(asked.scenario, asked.settings, starts, kinds, merges, seeds):
        print(json.dumps(asdict(one)), flush=True)


if __name__ == "__main__":
    main()
