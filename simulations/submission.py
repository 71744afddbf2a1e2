"""A Flower app handed to a SuperLink: its log as it comes, and how it ended."""

from __future__ import annotations

import json
import re
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from fedcof.errors import UserError
from fedcof.keys import Scalar
from simulations.runtime import ANSI, Connection, Resources, await_answer

_TAIL_LINES = 200

_EXCEPTION = re.compile(r"^[\w.]*(?:Error|Exception)(?:: .*)?$")
_VAGUE = "An error was encountered. Ending simulation."
_NO_ROOM = "ActorPool is empty"
# Ray gives its own processes half a minute, however busy the machine is.
_RAY_TOO_LATE = "node timed out during startup"


class FlowerRunError(UserError):
    """A Flower run that did not complete.

    Attributes
    ----------
    status : str
        Flower's word for how it ended, for example ``finished:failed``; empty if it was never accepted.
    details : str
        The cause.
    tail : list of str
        The last lines of its log.
    """

    def __init__(self, status: str, details: str, tail: list[str], log: Path | None = None) -> None:
        where = f"; the full log is in {log}" if log else ""
        super().__init__(f"The Flower run failed: {details.rstrip('. ')}{where}.")
        self.status = status
        self.details = details
        self.tail = tail

    @property
    def before_any_client(self) -> bool:
        """Whether Ray itself did not start in the time that it allows itself, so that the same may work again."""
        return _RAY_TOO_LATE in self.details


@dataclass(frozen=True)
class Submission:
    """A run that was handed to the SuperLink.

    Attributes
    ----------
    connection : Connection
        The SuperLink.
    process : subprocess.Popen
        ``flwr run``, which prints the run's log.
    resources : Resources or None
        What the run may use.
    """

    connection: Connection
    process: subprocess.Popen[str]
    resources: Resources | None

    def follow(
        self,
        on_line: Callable[[str], None],
        log: Path | None = None,
        is_done: Callable[[], bool] = lambda: False,
        last_words: str = "",
    ) -> None:
        """Follow the run to its end.

        Parameters
        ----------
        on_line : callable
            Called with every line of the run's log as it comes, without colours and line end.
        log : Path, optional
            File in which the caller keeps those lines, to be named in the error.
        is_done : callable
            Says, once the log has ended, whether the app has left all that it was to make; Flower is then not asked
            how the run ended, which takes a second.
        last_words : str, optional
            What the app logs when it has left all that it was to make; if it has, Flower's own end, which takes
            seconds, is not waited for: whoever stops the SuperLink ends that too.

        Raises
        ------
        FlowerRunError
            If the run was refused or did not complete.
        """
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        assert self.process.stdout is not None
        with self.process as process:
            try:
                for line in self.process.stdout:
                    clean = ANSI.sub("", line).rstrip()
                    tail.append(clean)
                    on_line(clean)
                    if last_words and last_words in clean and is_done():
                        process.kill()
                        return
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise FlowerRunError("", f"it was not accepted: {_boxed_text(tail)}", list(tail), log)
        if is_done():
            return
        status, details = _last_status(self.connection)
        if status != "finished:completed":
            raise FlowerRunError(status, _cause(status, details, tail, self.resources), list(tail), log)


def run_app(
    connection: Connection,
    app: Path,
    run_config: Mapping[str, Scalar],
    resources: Resources | None,
    on_line: Callable[[str], None],
    log: Path | None = None,
) -> None:
    """Run a Flower app to its end.

    Parameters
    ----------
    connection, app, run_config, resources
        See :func:`submit`.
    on_line, log
        See :meth:`Submission.follow`.

    Raises
    ------
    FlowerRunError
        If the run was refused or did not complete.
    """
    submit(connection, app, run_config, resources).follow(on_line, log)


def submit(
    connection: Connection, app: Path, run_config: Mapping[str, Scalar], resources: Resources | None
) -> Submission:
    """Hand a Flower app to the SuperLink, once that answers.

    Parameters
    ----------
    connection : Connection
        The SuperLink.
    app : Path
        Folder of the app.
    run_config : mapping of str to bool, int, float or str
        Values that override the app's defaults; strings of any content.
    resources : Resources or None
        What a simulation may use; None on real nodes.

    Returns
    -------
    Submission
        The run, which has to be followed.

    Raises
    ------
    UserError
        If the SuperLink does not answer.
    """
    while connection.unanswered:
        await_answer(connection, connection.unanswered.pop())
    config = connection.working_directory / "run-config.toml"
    config.write_text(tomli_w.dumps(dict(run_config)), encoding="utf-8")
    command = ["flwr", "run", str(app.absolute()), connection.name, "--stream", "--run-config", str(config)]
    if resources:
        command += ["--federation-config", resources.federation_config()]
    process = connection.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return Submission(connection, process, resources)


def _last_status(connection: Connection) -> tuple[str, str]:
    """Ask for the status and status details of the newest run."""
    command = ["flwr", "ls", connection.name, "--limit", "1", "--format", "json"]
    # Python and its libraries warn on standard error, which is no part of the answer.
    with connection.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        answer, warnings = (ANSI.sub("", said) for said in process.communicate())
    try:
        run = json.loads(answer)["runs"][0]
        return run["status"], run["status-details"]
    except (ValueError, LookupError, TypeError):
        said = (answer.strip() or warnings.strip())[-200:]
        return "", f"the SuperLink did not tell how it ended but said {said!r}"


def _cause(status: str, details: str, tail: deque[str], resources: Resources | None) -> str:
    """Say in one clause why a run failed."""
    if resources and any(_NO_ROOM in line for line in tail):
        return (
            f"no client fits into the machine, as each was to get {resources.client_num_cpus} CPU cores and"
            f" {resources.client_num_gpus:g} GPUs; set num-cpus and num-gpus to no more than one machine has"
        )
    if _VAGUE in details:
        # Python prints a chain of exceptions from the first cause to the last consequence.
        return next((line for line in tail if _EXCEPTION.match(line)), details)
    if details in {"", "N/A"}:
        return f"it ended as {status}"
    return details.removeprefix("Simulation failed with exception: ")


def _boxed_text(tail: deque[str]) -> str:
    """Take the text out of the box that flwr draws around an error."""
    boxed = [line.strip("│ ") for line in tail if line.startswith("│")]
    return " ".join(boxed or list(tail)[-1:])
