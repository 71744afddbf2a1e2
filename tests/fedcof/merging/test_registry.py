"""The merges are known by name, and what is no merge is not taken for one."""

import numpy as np
import pytest

from fedcof.errors import UserError
from fedcof.merging.merge import Merge, Merged, MergeOptions
from fedcof.merging.registry import MERGES


class First(Merge):
    NAME, STREAMS, TAKES_SCALE = "first", True, False

    def _take(self, update):
        self.first = update.arrays if self.clients == 1 else self.first

    def _merged(self, factor):
        return Merged({name: np.asarray(array, np.float32) for name, array in self.first.items()})


def test_all_are_there_and_call_themselves_so():
    names = ["mean", "task-arithmetic", "ties", "iso-c", "iso-cts", "core-space", "opcm", "fisher"]
    assert MERGES.names() == names
    assert [MERGES.get(name).NAME for name in names] == names
    assert [name for name in names if MERGES.get(name).NEEDS_FISHER] == ["fisher"]
    assert [name for name in names if not MERGES.get(name).TAKES_SCALE] == ["mean", "opcm", "fisher"]


def test_somebody_elses_can_be_registered():
    assert MERGES.register("first", First) is First
    try:
        assert MERGES.get("first")({}, MergeOptions()).merged
    finally:
        MERGES.unregister("first")
    with pytest.raises(UserError, match="Unknown merge 'first'"):
        MERGES.get("first")


@pytest.mark.parametrize(
    ("name", "merge", "reason"),
    [
        ("first", First({}, MergeOptions()), "give a class that fills in"),
        ("half", type("Half", (Merge,), {"NAME": "half"}), "give a class that fills in"),
        ("other", First, "says of itself that it is first"),
        (
            "unsaid",
            type("Unsaid", (Merge,), {"NAME": "unsaid", "_take": First._take, "_merged": First._merged}),
            "does not say its STREAMS, TAKES_SCALE",
        ),
    ],
)
def test_what_is_no_merge_cannot_be_registered(name, merge, reason):
    with pytest.raises(UserError, match=reason):
        MERGES.register(name, merge)
    assert name not in MERGES.names()
