"""Tests share the machine: each on one thread, limited on the clock of cores, the long ones spread out."""

import gc
import os

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.limits import pytest_collection_modifyitems, pytest_timeout_set_timer

__all__ = ["pytest_collection_modifyitems", "pytest_timeout_set_timer"]

# As do the processes that they start: sums over many rows have other last bits on two threads.
torch.set_num_threads(1)
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

# Ray's clients give way to everybody, so that beside other tests they would hardly get on.
os.environ |= {"RAY_worker_niceness": "0"}

# On a busy machine an example takes as long as it takes.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# What is imported and collected stays to the end: looking through it for garbage took two thirds of the collection.
gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """Collect garbage from here on, of what the tests themselves make."""
    gc.freeze()
    gc.enable()
