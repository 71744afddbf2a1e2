"""Tests share the machine: each on one thread, limited on the clock of cores, the long ones spread out."""

import torch

from tests.limits import pytest_collection_modifyitems, pytest_timeout_set_timer

__all__ = ["pytest_collection_modifyitems", "pytest_timeout_set_timer"]

torch.set_num_threads(1)
