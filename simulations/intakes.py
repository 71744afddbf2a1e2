"""What a command's runs take of their datasets' files and what they do not, said before anything is embedded."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path

from fedcof.data.intake import LEFT_OUT_FILE_NAME, LeftOut, bad_images_listed, write_left_out
from fedcof.data.problem import dataset_of, decoded_dataset_of
from fedcof.run.config import RunConfig
from simulations.terminal import say


class Intakes:
    """What is taken and left out, said once.

    Parameters
    ----------
    output : Path
        Folder for the results, which gets the list of what is left out.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._said: set[str] = set()
        self._left_out: dict[Hashable, tuple[LeftOut, ...]] = {}

    def say(self, configs: Iterable[RunConfig], thorough: bool = False) -> None:
        """Say in a line for each split what is taken of it and what is not, and list the latter.

        Parameters
        ----------
        configs : iterable of RunConfig
            The runs; datasets that come with packages, and features, are not spoken of.
        thorough : bool
            Whether every image is decoded to find bad ones.

        Raises
        ------
        UserError
            If a dataset cannot be loaded, or images of it cannot be used.
        """
        with bad_images_listed(self._output):
            by_source = {config.data.source: config for config in configs if not config.data.is_precomputed}
            for source, config in by_source.items():
                intake = (decoded_dataset_of if thorough else dataset_of)(config).intake
                self._left_out[source] = intake.left_out
                self.say_lines(intake.summary())
        left_out = [each for of_source in self._left_out.values() for each in of_source]
        write_left_out(left_out, self._output)
        if left_out and LEFT_OUT_FILE_NAME not in self._said:
            say(f"What is left out is listed in {self._output / LEFT_OUT_FILE_NAME}")
            self._said.add(LEFT_OUT_FILE_NAME)

    def say_lines(self, lines: Iterable[str]) -> None:
        """Say lines that have not been said.

        Parameters
        ----------
        lines : iterable of str
            See :meth:`fedcof.data.intake.Intake.summary`.
        """
        for line in lines:
            if line not in self._said:
                say(line)
                self._said.add(line)
