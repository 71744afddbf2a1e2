"""What trackers are tried on: a run of three rounds of training on nodes with names, without running it."""

from pathlib import Path

from fedcof.run.config import RunConfig
from fedcof.run.energy import EnergyUse
from fedcof.run.results import START, TRAIN, NodeResult, RoundResult, RunResult

CONFIG = RunConfig(
    dataset="nodes",
    classes="ok,bad",
    test_data="/srv/anna/test",
    num_clients=2,
    continue_="linear-probe",
    continue_rounds=3,
    seed=7,
)
ROUNDS = [
    RoundResult(1, 2, 0.5, 100, 200, START),
    RoundResult(2, 2, 0.625, 300, 400, TRAIN, 0.75, 0.5, 0.25),
    RoundResult(3, 1, None, 500, 600, TRAIN, 0.5),
    RoundResult(4, 2, 0.875, 700, 800, TRAIN, 0.25, 0.75, 0.5),
]
RESULT = RunResult(
    method="fedcof",
    seed=7,
    accuracy=0.875,
    uplink_bytes=700,
    downlink_bytes=800,
    clients=2,
    clients_rejected=1,
    seconds=1.5,
    config=CONFIG.to_mapping(),
    rejected={"1": "hospital-east said: /srv/anna is full"},
    rounds=ROUNDS,
    nodes=[NodeResult("hospital-east", "accepted", 10, 2)],
    energy=EnergyUse(1.0, 2.0, 4.0, None, 1.5, "a meter"),
)
# What nobody else is to get.
PRIVATE = ("hospital-east", "anna", "srv")


def tell(tracker, output, folder="run", rounds=ROUNDS, result=RESULT, before=()):
    """Tell a tracker of that run, or of a part of it."""
    tracker.on_run_start(CONFIG, output, folder)
    if before:
        tracker.on_resume(before)
    for client, entry in enumerate(rounds):
        tracker.on_reply(client)
        tracker.on_round_end(entry, None)
    if result:
        tracker.on_run_end(result)


def files_below(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]
