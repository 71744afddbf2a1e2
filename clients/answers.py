"""What a node has answered: counted against its limits, and kept so that who asks again learns nothing new."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from clients.policy import NO_LIMIT, NodePolicy, refused
from clients.refusal import Refusal
from fedcof.data.section import DataSection
from fedcof.files import write_whole
from fedcof.run.config import RunConfig

FILE_NAME = "answers.json"
SECONDS_A_DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Answer:
    """Statistics as they were sent.

    Attributes
    ----------
    arrays : dict of str to ndarray
        How they are written.
    tag : str
        By which codec.
    samples, withheld : int
        The samples that they tell of, and the classes that they leave out.
    fingerprint : str
        That of the backbone.
    """

    arrays: dict[str, NDArray[Any]]
    tag: str
    samples: int
    withheld: int
    fingerprint: str


@dataclass(frozen=True)
class Given:
    """One answer that was given.

    Attributes
    ----------
    at : float
        When, in seconds since 1970.
    digest : str
        What tells it from others; empty for what is never repeated.
    epsilon, delta : float
        The privacy that it was given with; 0 without.
    asked, seen : str
        The question's, see :class:`Question`; empty for what is never repeated, and in notes of earlier versions.
    """

    at: float
    digest: str = ""
    epsilon: float = 0.0
    delta: float = 0.0
    asked: str = ""
    seen: str = ""


@dataclass(frozen=True)
class Question:
    """What was asked, and of what, as far as it is known before anything is read.

    Attributes
    ----------
    asked : str
        Digest of the keys that an answer depends on, and of the policy's limits that it keeps to.
    seen : str
        Digest of what tells, without reading them, that data and backbone are what they were; empty where it
        cannot be told.
    """

    asked: str
    seen: str = ""

    @staticmethod
    def of(config: RunConfig, policy: NodePolicy, seen: str = "", network: str = "") -> Question:
        """Tell questions apart.

        Parameters
        ----------
        config : RunConfig
            What was asked.
        policy : NodePolicy
            What the owner allows.
        seen : str
            See :attr:`seen`.
        network : str
            What tells the trained network that the server sends along to embed with; empty without one.

        Returns
        -------
        Question
            Equal where the same answer answers both.
        """
        seeds = DataSection.named(seed=0)
        # The seed is the server's: another one would only draw the rounding anew.
        values = {key: value for key, value in config.upload_values().items() if key not in seeds}
        # An answer from before the owner has become stricter is not repeated.
        limits = [policy.smallest_count, policy.largest_groups]
        return Question(_digest([config.method.kind, values, limits, *([network] if network else [])]), seen)

    def digest(self, samples: list[str], fingerprint: str) -> str:
        """Tell answers apart, by all that they depend on.

        Parameters
        ----------
        samples : list of str
            Class and content of each sample.
        fingerprint : str
            That of the backbone, or of the features' encoder.

        Returns
        -------
        str
            Hexadecimal SHA-256 digest.
        """
        return _digest([self.asked, sorted(samples), fingerprint])


def _digest(of: object) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()


class Answers:
    """A node's answers.

    Parameters
    ----------
    policy : NodePolicy
        Its limits, and where they are noted.
    """

    def __init__(self, policy: NodePolicy) -> None:
        self._policy, self._state = policy, policy.state

    def repeated(self, question: Question) -> Answer | None:
        """Give an answer again that can be told to be the one, before anything is read.

        Parameters
        ----------
        question : Question
            What is asked.

        Returns
        -------
        Answer or None
            None where there is none, or it takes a look at the samples to tell.

        Raises
        ------
        Refusal
            If what is kept is damaged.
        """
        if not question.seen:
            return None
        with self._state.locked():
            same = (one for one in self._given() if (one.asked, one.seen) == (question.asked, question.seen))
            return next((self._kept(one.digest) for one in same if one.digest), None)

    def check_room(self, config: RunConfig, question: Question | None = None) -> None:
        """Refuse what would be one answer too many, before anything is read.

        Parameters
        ----------
        config : RunConfig
            What was asked.
        question : Question, optional
            What tells whether a look at the samples may show that the answer is a repetition, which is none too
            many; without, it cannot be one.

        Raises
        ------
        Refusal
            If there is no room.
        """
        with self._state.locked():
            given = self._given()
            if question and any(one.digest and one.asked in ("", question.asked) for one in given):
                return
            self._room_for(config, given)

    def first(self, question: Question, digest: str, config: RunConfig, make: Callable[[], Answer]) -> Answer:
        """Give the first answer to a question, made now if it has not been asked before.

        Parameters
        ----------
        question : Question
            What is asked.
        digest : str
            See :meth:`Question.digest`.
        config : RunConfig
            What was asked.
        make : callable
            Makes the answer, which is not asked for where one is kept or there is no room for another.

        Returns
        -------
        Answer
            The same whenever it is asked for.

        Raises
        ------
        Refusal
            If it would be one too many, or it cannot be kept.
        """
        with self._state.locked():
            given = self._given()
            # One that was kept and could not be noted has never been sent.
            kept = self._kept(digest) if any(one.digest == digest for one in given) else None
            if kept is None:
                self._room_for(config, given)
        # To make one may take an hour, for which no other process has to wait.
        answer = make() if kept is None else kept
        with self._state.locked():
            before = given = self._given()
            kept = self._kept(digest) if any(one.digest == digest for one in given) else None
            if kept is None:
                given = self._room_for(config, given, digest)
                self._keep(digest, answer)
            given = [replace(one, **asdict(question)) if one.digest == digest else one for one in given]
            if given != before:
                self._note(given)
        return answer if kept is None else kept

    def count(self, config: RunConfig) -> None:
        """Count an answer that is not kept: a network, or an accuracy.

        Parameters
        ----------
        config : RunConfig
            What was asked.

        Raises
        ------
        Refusal
            If it would be one too many.
        """
        with self._state.locked():
            self._note(self._room_for(config, self._given()))

    def _given(self) -> list[Given]:
        noted = self._state.read(FILE_NAME) or []
        # Earlier versions noted the time alone.
        return [Given(**one) if isinstance(one, dict) else Given(float(one)) for one in noted]

    def _note(self, given: list[Given]) -> None:
        self._state.write(FILE_NAME, [asdict(one) for one in given])

    def _room_for(self, config: RunConfig, given: list[Given], digest: str = "") -> list[Given]:
        """Add one more, if the limits leave room for it."""
        policy, now = self._policy, time.time()
        recent = sum(now - SECONDS_A_DAY < one.at for one in given)
        if policy.answers_per_day != NO_LIMIT and recent >= policy.answers_per_day:
            raise refused(policy.name, "another answer", f"{policy.answers_per_day} within 24 hours")
        if policy.answers_in_total != NO_LIMIT and len(given) >= policy.answers_in_total:
            raise refused(policy.name, "another answer", f"{policy.answers_in_total} in all")
        new = Given(now, digest, config.privacy.epsilon, config.privacy.delta if config.privacy.epsilon else 0.0)
        if policy.largest_epsilon:
            self._check_sum([*given, new])
        return [*given, new]

    def _check_sum(self, given: list[Given]) -> None:
        """Add the promises up, as different answers about the same samples do (basic composition)."""
        policy = self._policy
        epsilon, delta = sum(one.epsilon for one in given), sum(one.delta for one in given)
        slack = 1 + 1e-9
        if epsilon > policy.largest_epsilon * slack or delta > policy.largest_delta * slack:
            allowed = f"an epsilon of {policy.largest_epsilon:g} and a delta of {policy.largest_delta:g} in all"
            raise refused(policy.name, "another private answer", allowed)

    def _kept(self, digest: str) -> Answer | None:
        said = self._state.read(f"{digest}.json")
        if said is None:
            return None
        try:
            return Answer(load_file(self._state.folder / f"{digest}.safetensors"), **said)
        except Exception as error:
            # Whatever a damaged file makes its reader raise.
            raise Refusal("an answer that it has given before is damaged, and its owner has to mend it") from error

    def _keep(self, digest: str, answer: Answer) -> None:
        arrays = {name: np.ascontiguousarray(array) for name, array in answer.arrays.items()}
        try:
            write_whole(self._state.folder / f"{digest}.safetensors", save(arrays))
        except OSError as error:
            raise Refusal("it cannot write down what it answers, and so answers nothing") from error
        said = {"tag": answer.tag, "samples": answer.samples, "withheld": answer.withheld}
        self._state.write(f"{digest}.json", {**said, "fingerprint": answer.fingerprint})
