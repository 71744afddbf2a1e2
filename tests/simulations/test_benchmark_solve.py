"""The solve benchmark: its fields, on a size that takes no time."""

from rich.console import Console

from simulations.benchmarks.solve import Size, benchmark_solve, results_table


def test_the_fields_of_a_tiny_size():
    sizes = [
        Size("tiny", 40, 3, 8, rows_per_upload=2, encoding=encoding, repeats=1) for encoding in ("float32", "int8")
    ]
    results = benchmark_solve(sizes)
    for size, result in zip(sizes, results, strict=True):
        assert result["name"] == "tiny"
        assert result["encoding"] == size.encoding
        assert all(
            result[field] > 0 for field in ("t_product", "t_cholesky_solve", "t_ours", "ratio", "peak_bytes")
        )
        assert result["peak_over_uploads_bytes"] < result["peak_bytes"]
    assert results[0]["upload_bytes"] == 40 * (2 + 1 + 4 * 8)
    assert results[1]["upload_bytes"] == 40 * (2 + 1 + 8 + 4) + 20 * 4
    console = Console(width=120, record=True)
    console.print(results_table(results))
    assert "tiny" in console.export_text()
