"""Who is told how a run goes: in which order, after which files, and what it costs if a tracker fails."""

import logging

import pytest

from clients.app import app as client_app
from fedcof import UserError
from fedcof.run.replies import expected_replies
from fedcof.run.results import START, TRAIN, load_results
from server import app
from server.app import Progress
from server.callbacks import Callback, Callbacks, Tolerated
from server.federation import Federation
from server.reporting import CHECKPOINT_FILE_NAME
from server.run import execute
from server.run_files import BEST_FOLDER_NAME, ResultsFile
from tests.server.breaking_off import BrokenOffError
from tests.server.in_memory_grid import InMemoryGrid
from tests.server.test_federated_run import CLIENTS, config_of, dataset, run

__all__ = ["dataset"]

EVENTS = ["on_run_start", "on_resume", "on_reply", "on_round_end", "on_run_end", "on_failure"]


class Recorder(Callback):
    """Keeps what it is told, and calls something before."""

    def __init__(self, before=lambda event, what: None):
        self.told = []
        for event in EVENTS:
            setattr(self, event, lambda *what, event=event: self._note(before, event, what))

    def _note(self, before, event, what):
        self.told.append((event, what))
        before(event, what)

    def of(self, *events):
        return [what[0] for event, what in self.told if event in events]


def execute_in_memory(config, output, *callbacks):
    grid = InMemoryGrid(client_app, CLIENTS, run_config=config.to_mapping())
    return execute(Federation(grid, CLIENTS), config, output, "run", callbacks)


def test_it_is_told_all_once_and_after_the_runs_own_files(dataset, tmp_path):
    files = []

    def look(event, what):
        if event == "on_round_end":
            written = [(tmp_path / "run" / name).exists() for name in (CHECKPOINT_FILE_NAME, BEST_FOLDER_NAME)]
            files.append((what[0].phase, *written))
        if event == "on_run_end":
            assert load_results(tmp_path) == [what[0]]
            assert (tmp_path / "run" / what[0].head.removeprefix("run/")).exists()

    recorder = Recorder(look)
    config = config_of(dataset, continue_rounds=2)
    result = execute_in_memory(config, tmp_path, ResultsFile(tmp_path), recorder)
    assert recorder.told[0] == ("on_run_start", (config, tmp_path, "run"))
    assert recorder.of("on_round_end") == result.rounds
    assert files == [(START, False, False), (TRAIN, True, True), (TRAIN, True, True)]
    assert recorder.told[-1] == ("on_run_end", (result,))
    assert recorder.of("on_resume", "on_failure") == []
    clients = recorder.of("on_reply")
    assert sorted(clients[:CLIENTS]) == list(range(CLIENTS))
    assert len(clients) == expected_replies(config)


def test_of_a_run_that_fails_it_is_told_why_and_no_end(dataset, tmp_path):
    recorder = Recorder()
    with pytest.raises(UserError, match="fewer than the quorum") as raised:
        execute_in_memory(config_of(dataset, dropout=0.99), tmp_path, recorder)
    assert recorder.told[-1] == ("on_failure", (raised.value,))
    assert recorder.of("on_run_end") == []


def test_a_method_that_asks_no_clients_has_a_start_and_an_end(dataset, tmp_path):
    recorder = Recorder()
    config = config_of(dataset, method="oracle", continue_="none", continue_rounds=20, continue_fraction=1.0)
    result = execute(None, config, tmp_path, "run", [recorder])
    assert [event for event, _ in recorder.told] == ["on_run_start", "on_run_end"]
    assert recorder.of("on_run_end") == [result]


def test_gone_on_with_it_hears_of_the_rounds_before(dataset, tmp_path):
    config, before, after = config_of(dataset), Recorder(), Recorder()
    with pytest.raises(BrokenOffError):
        run(config, tmp_path, break_at=CLIENTS + 2 * 3 + 1, callbacks=[before])
    resumed, _ = run(config, tmp_path, callbacks=[after])
    assert after.of("on_resume") == [tuple(before.of("on_round_end"))] == [tuple(resumed.rounds[:3])]
    assert after.of("on_round_end") == resumed.rounds[3:]


@pytest.mark.parametrize("failing", [event for event in EVENTS if event not in ("on_resume", "on_failure")])
def test_a_tracker_that_fails_costs_no_run_and_is_told_nothing_more(dataset, tmp_path, caplog, failing):
    def fail(event, what):
        if event == failing:
            raise OSError("no route to host.\nTraceback")

    recorder = Recorder(fail)
    config = config_of(dataset, continue_rounds=1)
    with caplog.at_level(logging.WARNING, "flwr"):
        result = execute_in_memory(config, tmp_path, Tolerated("hapless", recorder), ResultsFile(tmp_path))
    assert load_results(tmp_path) == [result]
    assert len(recorder.of(failing)) == 1
    assert recorder.told[-1][0] == failing
    said = [record.getMessage() for record in caplog.records if "hapless" in record.getMessage()]
    assert said == ["The tracker hapless has failed, so the run goes on without it (OSError: no route to host)."]


def test_what_a_run_needs_is_not_tolerated(dataset, tmp_path):
    def fail(event, what):
        if event == "on_round_end":
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        execute_in_memory(config_of(dataset), tmp_path, Recorder(fail))


def test_several_are_told_in_their_order():
    said = []
    one, two = (Recorder(lambda event, what, name=name: said.append((name, event))) for name in ("one", "two"))
    both = Callbacks([one, two])
    for event in EVENTS:
        getattr(both, event)(*range({"on_run_start": 3, "on_round_end": 2}.get(event, 1)))
    assert said == [(name, event) for event in EVENTS for name in ("one", "two")]
    assert one.told == two.told


@pytest.mark.parametrize(("replies", "lines"), [(7, 7), (250, 125), (1001, 101)])
def test_progress_is_about_a_hundred_lines_and_the_last(caplog, replies, lines):
    progress = Progress(2, 3, replies)
    with caplog.at_level(logging.INFO, app.logger.name):
        for client in range(replies):
            progress.on_reply(client)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == lines
    assert said[-1] == f"Run 2 of 3, reply {replies} of {replies}"
