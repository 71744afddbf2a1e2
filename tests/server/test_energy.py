"""Energy: what a run asks for is measured, by codecarbon or what stands for it, and divided by CPU time."""

import subprocess
import sys
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import server.energy
from clients.app import app as client_app
from fedcof import UserError
from fedcof.run.config import RunConfig
from fedcof.run.results import append_result, load_results
from server.energy import EnergyMeter, measured
from server.federation import Federation
from server.run import execute
from tests.server.in_memory_grid import InMemoryGrid


class Tracker:
    """Stands for codecarbon's: what a kilowatt-hour is to it, and no energy until it is stopped."""

    made = ()

    def __init__(self, **options):
        self.options, self.calls = options, []
        self._hardware = [SimpleNamespace(), SimpleNamespace(_mode="cpu_load", _tdp=65)]
        Tracker.made.append(self)

    def start(self):
        self.calls.append("start")

    def stop(self):
        self.calls.append("stop")
        numbers = {"cpu_energy": 1e-5, "gpu_energy": 0.0, "ram_energy": 2e-6}
        self.final_emissions_data = SimpleNamespace(**numbers, cpu_model="Some CPU", gpu_model=None)


@pytest.fixture
def codecarbon(monkeypatch):
    module = ModuleType("codecarbon")
    module.OfflineEmissionsTracker = Tracker
    monkeypatch.setitem(sys.modules, "codecarbon", module)
    monkeypatch.setattr(Tracker, "made", [])
    return Tracker.made


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCOF_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    (tmp_path / "features").mkdir()
    for split in ("train", "test"):
        labels = np.arange(60) % 3
        features = generator.normal(size=(3, 5))[labels] + generator.normal(size=(60, 5))
        np.save(tmp_path / "features" / f"{split}_features.npy", features.astype(np.float32))
        np.save(tmp_path / "features" / f"{split}_labels.npy", labels)
    return RunConfig(dataset=f"features:{tmp_path / 'features'}", num_clients=3, partition="iid", energy=True)


def result_of(config, folder):
    grid = InMemoryGrid(client_app, config.data.num_clients, run_config=config.to_mapping())
    return execute(Federation(grid, config.data.num_clients), config, folder, "")


@pytest.mark.parametrize("method", ["fedncm", "oracle"])
def test_a_run_that_asks_for_it_is_measured(config, codecarbon, tmp_path, method):
    append_result(tmp_path, result_of(config.replaced(method=method), tmp_path))
    (result,) = load_results(tmp_path)
    (tracker,) = codecarbon
    assert tracker.calls == ["start", "stop"]
    assert result.energy.cpu_joules == pytest.approx(36.0)
    assert result.energy.joules == pytest.approx(43.2)
    assert result.energy.seconds >= result.seconds
    assert (
        result.energy.source == "CPU by a model: its load by this run times the 65 W of Some CPU, memory by a model"
    )


def test_nobody_is_told_or_asked_of_it(config, codecarbon):
    with measured(config) as used:
        used()
    options = codecarbon[0].options
    assert options["output_methods"] == []
    assert options["emissions_endpoint"] is None
    assert options["force_carbon_intensity_g_co2e_kwh"] == 0


def test_a_run_that_does_not_ask_needs_no_codecarbon(config, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    assert result_of(config.replaced(energy=False), tmp_path).energy is None


def test_without_the_extra_the_sentence_says_what_to_install(config, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(UserError, match=r"pip install 'fedcof\[energy\]', or set energy to false"):
        result_of(config, tmp_path)


def test_the_measurement_ends_with_a_run_that_fails(config, codecarbon, monkeypatch, tmp_path):
    def fail(*_):
        raise UserError("Too few clients.")

    monkeypatch.setattr("server.run._federated", fail)
    with pytest.raises(UserError):
        result_of(config, tmp_path)
    assert codecarbon[0].calls == ["start", "stop"]


def test_the_clients_part_is_that_of_the_processes_below(codecarbon):
    meter = EnergyMeter(clients_are_here=True)
    burn = "import time\nwhile time.process_time() < 1: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    used = meter.stop()
    assert used.client_share > 0.5
    assert used.client_joules + used.server_joules == pytest.approx(used.joules)
    meter = EnergyMeter(clients_are_here=True)
    started = time.process_time()
    while time.process_time() < started + 0.5:
        pass
    assert meter.stop().client_share < 0.5


@pytest.mark.parametrize("values", [{"dataset": "nodes", "classes": "a,b,c"}, {"ray_address": "10.0.0.1:6379"}])
def test_clients_elsewhere_have_no_part(codecarbon, values):
    with measured(RunConfig(energy=True, **values)) as energy_used:
        used = energy_used()
    assert used.client_share is used.client_joules is None
    assert used.server_joules == used.joules


def test_another_codecarbon_is_no_error(codecarbon, monkeypatch):
    monkeypatch.setattr(server.energy, "_cpu_seconds", lambda: (0.0, 0.0))
    meter = EnergyMeter(clients_are_here=True)
    del codecarbon[0]._hardware
    used = meter.stop()
    assert used.source.startswith("CPU by a way that codecarbon does not name")
    assert used.client_share == 0


def test_the_real_codecarbon_measures_without_a_network(config, monkeypatch):
    pytest.importorskip("codecarbon")

    def no_network(*_):
        raise AssertionError("a connection was made")

    monkeypatch.setattr("socket.socket.connect", no_network)
    with measured(config) as energy_used:
        started = time.process_time()
        while time.process_time() < started + 0.5:
            pass
        used = energy_used()
    assert used.cpu_joules > 0
    assert used.memory_joules > 0
    assert used.client_share < 0.5
    assert used.source.startswith("CPU")
    assert "does not name" not in used.source
