"""What a node's samples are made of: its own data, and the names that a server sends, never a file of that name."""

import pytest
from flwr.app import Context, RecordDict
from PIL import Image

from clients.samples import images_here
from fedcof import UserError
from fedcof.run.config import RunConfig


def test_a_node_opens_no_file_that_a_server_names(tmp_path):
    (tmp_path / "passwords").write_text("ant\nbee\n")
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "images.csv").write_text("path,label\na.png,bee\n")
    context = Context(
        0,
        0,
        {"data": str(tmp_path / "images.csv"), "smallest-count": 1, "state": str(tmp_path / "state")},
        RecordDict(),
        {},
    )
    config = RunConfig(dataset="nodes", classes="ant,bee")
    assert images_here(config, 0, context)[1].tolist() == [1]
    named = config.replaced(classes=str(tmp_path / "passwords"))
    with pytest.raises(UserError, match="gives 1 names"):
        images_here(named, 0, context)
