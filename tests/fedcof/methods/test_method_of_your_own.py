"""The method that docs/method.md shows works as it stands there, and by the entry point that it names."""

import re
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from fedcof import FedNCM, class_means
from fedcof.heads.registry import HEADS
from fedcof.merging.registry import MERGES
from fedcof.methods.registry import METHODS
from fedcof.run.config import RunConfig
from fedcof.wire.registry import CODECS

SECTION = (Path(__file__).parents[3] / "docs" / "method.md").read_text().partition("## A method of your own")[2]


def block(language):
    """The first block of a language in the section."""
    return re.search(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)[1]


@pytest.fixture
def plain():
    """Run the page's code; gives the names that it has defined."""
    names = {"__name__": "a_page"}
    exec(block("python"), names)
    yield names
    METHODS.unregister("plain")


def uploads():
    features = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 3
    return [class_means(features[start::4], labels[start::4]) for start in range(4)]


def test_the_page_s_method_solves_what_it_says(plain):
    config = RunConfig(method="plain")
    assert config.method.chosen is plain["METHOD"]
    ours, theirs = config.method.chosen.aggregator(3, 8, config.method), FedNCM(3, 8)
    for upload in uploads():
        ours.add(upload)
        theirs.add(upload)
    assert torch.equal(ours.solve().weight, theirs.solve().weight)


def test_the_page_s_groups_of_entry_points_are_those_that_are_looked_at(monkeypatch):
    told = tomllib.loads(block("toml"))["project"]["entry-points"]
    groups = []
    monkeypatch.setattr("fedcof.registry.entry_points", lambda group: groups.append(group) or [])
    for known in (METHODS, HEADS, CODECS, MERGES):
        monkeypatch.setattr(known, "_offered", None)
        known.names()
    assert set(groups) == set(told)


def test_an_installed_package_offers_it(plain, monkeypatch, tmp_path):
    METHODS.unregister("plain")
    source = block("python").replace('METHODS.register("plain", PlainMethod())', "PlainMethod()")
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "plain.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    offered = tomllib.loads(block("toml"))["project"]["entry-points"]["fedcof.methods"]
    entries = {name: EntryPoint(name, place, "fedcof.methods") for name, place in offered.items()}
    monkeypatch.setattr(METHODS, "_offered", entries)
    try:
        assert RunConfig(method="plain").method.chosen.title == "Plain means"
        assert "plain" in RunConfig.declared()["method"].takes
    finally:
        METHODS.unregister("plain")
        for name in ("mypackage", "mypackage.plain"):
            sys.modules.pop(name, None)
