"""Whether a node's data has changed: any change shows, whatever the data is, and nothing else does."""

import os

import pytest

from clients.data_state import data_state_of
from clients.node_state import NodeState


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.png").write_bytes(b"image")
    return tmp_path / "data"


def test_a_change_shows_and_a_link_in_a_circle_does_no_harm(folder, tmp_path):
    state = NodeState(tmp_path / "state")
    (folder / "a" / "up").symlink_to(folder)
    before = data_state_of(str(folder), state)
    assert before == data_state_of(str(folder), state) != ""
    (folder / "b" / "2.png").write_bytes(b"image")
    assert data_state_of(str(folder), state) != before


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_images_that_a_table_names_are_looked_at(folder, tmp_path, separator):
    state, table = NodeState(tmp_path / "state"), folder / "table.csv"
    table.write_text(f"path{separator}label\na/1.png{separator}a\n", encoding="utf-8")
    before = data_state_of(str(table), state)
    assert before
    os.utime(folder / "b" / "1.png", ns=(1, 1))
    assert data_state_of(str(table), state) == before
    os.utime(folder / "a" / "1.png", ns=(1, 1))
    assert data_state_of(str(table), state) != before


def test_another_node_says_something_else_of_the_same_data(folder, tmp_path):
    states = [data_state_of(str(folder), NodeState(tmp_path / name)) for name in "xy"]
    assert states[0] != states[1]


def test_of_what_cannot_be_looked_at_nothing_is_said(tmp_path):
    assert data_state_of(str(tmp_path / "nowhere"), NodeState(tmp_path / "state")) == ""
