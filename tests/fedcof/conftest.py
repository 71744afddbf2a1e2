"""Fixtures that embedding and its cache share."""

import pytest

from tests.fedcof.images import counting_backbone


@pytest.fixture
def backbone():
    return counting_backbone()
