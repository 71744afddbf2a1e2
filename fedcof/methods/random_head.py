"""A random head: the start that training is compared with."""

from __future__ import annotations

from typing import ClassVar

from fedcof.methods.method import StartOfTraining


class RandomHead(StartOfTraining):
    """No statistics and no closed form: training starts from a head that is drawn at random."""

    name: ClassVar[str] = "random"
    title: ClassVar[str] = "a random head"
    colour: ClassVar[str] = "#009E73"
    marker: ClassVar[str] = "^"


METHOD = RandomHead()
