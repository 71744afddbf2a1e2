"""What the docs show in Python runs as it stands."""

import re
from pathlib import Path

import pytest

from fedcof.methods.registry import METHODS

ROOT = Path(__file__).parents[1]
NEEDS_MORE = "flwr"  # An app of Flower's runs on Flower, not by itself.


def blocks():
    """Each block of Python of the docs that stands by itself, with the line that it starts on."""
    for path in sorted((ROOT / "docs").glob("*.md")):
        text = path.read_text()
        for block in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            if NEEDS_MORE not in block[1]:
                line = text[: block.start()].count("\n") + 1
                yield pytest.param(block[1], id=f"{path.name}-{line}")


@pytest.mark.parametrize("block", list(blocks()))
@pytest.mark.filterwarnings("error::UserWarning")
def test_a_block_of_the_docs_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # They write files.
    # What a block registers is for this test alone.
    monkeypatch.setattr(METHODS, "_loaded", dict(METHODS._loaded))
    exec(compile(block, "docs", "exec"), {"__name__": "__main__"})


def test_the_method_is_shown_with_and_without_scikit_learn():
    shown = [block.values[0] for block in blocks() if block.id.startswith("method.md")]
    assert any("FedCOFClassifier" in block for block in shown)
    assert any("FedCOF(" in block for block in shown)
