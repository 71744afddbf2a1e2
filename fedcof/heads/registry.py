"""The heads by name."""

from __future__ import annotations

HEADS = ["ridge", "lda"]
