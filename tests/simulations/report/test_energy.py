"""Energy in tables, sentence, page and CSV."""

from dataclasses import replace

from fedcof.run.energy import EnergyUse
from fedcof.run.results import append_result
from simulations.display import comparison_table, energy_sentence, results_table
from simulations.report.writing import write_report
from tests.simulations.report.test_report import page_rows, run

USED = EnergyUse(30.0, 0.0, 10.0, 0.75, 8.0, "CPU by a model")


def test_tables_and_sentence_have_the_joules():
    runs = [replace(run(seed=0), energy=USED), run(seed=1)]
    table = results_table(runs, [])
    assert [str(cell) for cell in table.columns[-1].cells] == ["40", "-"]
    # An average of energies of which one is unknown is unknown.
    assert [str(cell) for cell in comparison_table([runs[0], runs[0]], []).columns[-1].cells] == ["40"]
    assert "energy J" not in [str(column.header) for column in comparison_table(runs, []).columns]
    assert "energy J" not in [str(column.header) for column in results_table([run()], []).columns]
    sentence = energy_sentence(USED)
    assert "40.0 J in 8.0 s" in sentence
    assert "30.0 J the clients' and 10.0 J the server's" in sentence
    assert "not counted" in energy_sentence(replace(USED, client_share=None))


def test_the_report_says_it(tmp_path):
    append_result(tmp_path, replace(run(), energy=USED))
    append_result(tmp_path, replace(run("fedncm"), energy=replace(USED, client_share=None)))
    rows = page_rows(write_report(tmp_path).read_text(), "energy")
    assert {row["energy, J"] for row in rows} == {"40.0"}
    assert {row["clients, J"] for row in rows} == {"30.0", "\N{EN DASH}"}
    assert {row["known by"] for row in rows} == {"CPU by a model"}
    header, *lines = (tmp_path / "comparison.csv").read_text().splitlines()
    assert header.endswith("joules,client_joules")
    assert sorted(line.split(",")[-2:] for line in lines) == [["40.0", ""], ["40.0", "30.0"]]
