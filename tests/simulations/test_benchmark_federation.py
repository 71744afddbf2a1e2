"""The benchmark of one upload more measures what it says."""

import pytest

from simulations.benchmarks.federation import Size, measure, results_table


@pytest.mark.parametrize("packed", [True, False])
def test_a_small_case_is_measured(tmp_path, monkeypatch, packed):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path))
    size = Size(num_uploads=260, rows_per_upload=2, num_classes=4, feature_dim=6, packed=packed, repeats=1)
    found = measure(size)
    assert min(found[name] for name in ("t_solve", "t_first", "t_one_more", "cpu_solve", "cpu_one_more")) > 0
    assert found["ratio"] == found["t_one_more"] / found["t_solve"]
    assert results_table([found]).row_count == 1
