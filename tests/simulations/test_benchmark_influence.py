"""The benchmark of influence: its fields, on a size that takes no time."""

from rich.console import Console

from simulations.benchmarks.influence import Size, measure, results_table


def test_the_fields_of_a_tiny_size():
    result = measure(Size(12, 2, 3, 8, repeats=1))
    assert (result["num_clients"], result["estimator"]) == (12, "per-class")
    assert result["ratio"] == result["t_influence"] / result["t_solve"]
    console = Console(width=120, record=True)
    console.print(results_table([result]))
    assert "leave-one-out" in console.export_text()
