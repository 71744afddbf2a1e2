"""Energy of runs: read as it was written, averaged, and divided."""

from dataclasses import asdict, replace

import pytest

from fedcof import UserError
from fedcof.run.config import RunConfig
from fedcof.run.energy import EnergyUse
from fedcof.run.results import RunResult, append_result, load_results

USED = EnergyUse(30.0, 0.0, 10.0, 0.75, 8.0, "CPU by a model")
RESULT = RunResult("fedcof", 0, 0.5, 1, 1, 3, 0, 1.0, RunConfig().to_mapping())


@pytest.mark.parametrize("damaged", [{"source": 3}, {"cpu_joules": "much"}, {"client_share": "half"}])
def test_damaged_energy_is_no_result(tmp_path, damaged):
    append_result(tmp_path, replace(RESULT, energy=USED))
    assert load_results(tmp_path)[0].energy == USED
    append_result(tmp_path, replace(RESULT, energy=replace(USED, **damaged)))
    with pytest.raises(UserError, match="is not a results file"):
        load_results(tmp_path)


def test_averages_are_over_seeds_and_keep_every_source():
    other = replace(USED, cpu_joules=50.0, source="CPU by its meter", client_share=0.25)
    mean = EnergyUse.averaged([USED, other, USED])
    assert mean.joules == pytest.approx((40 + 60 + 40) / 3)
    assert mean.source == "CPU by a model; CPU by its meter"
    assert EnergyUse.averaged([USED, replace(USED, client_share=None)]).client_joules is None
    assert EnergyUse.of_json(asdict(USED)) == USED
