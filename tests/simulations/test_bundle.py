import io
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.cli.utils import validate_project_name
from flwr.common.constant import FAB_MAX_SIZE

from fedcof.errors import UserError
from fedcof.run.config import RunConfig
from simulations import bundle


def description(app):
    return tomllib.loads((app / "pyproject.toml").read_text())


def staged_config(folder, run_config=None):
    return description(bundle.stage_app(folder, run_config))["tool"]["flwr"]["app"]["config"]


def declare(monkeypatch, app):
    """Put another app's description in the place of the checkout's."""
    project = {"name": "a", "version": "1", "description": "b", "license": "c"}
    monkeypatch.setattr(bundle, "_description", lambda: {"project": project, "tool": {"flwr": {"app": app}}})


def test_flwr_accepts_the_staged_app(tmp_path):
    app = bundle.stage_app(tmp_path / "scratch")
    validate_project_name(app.name, "The folder")
    assert build_fab_from_disk(app)


def test_the_app_holds_its_packages_and_nothing_else(tmp_path):
    app = bundle.stage_app(tmp_path)
    assert {path.name for path in app.iterdir()} == {*bundle.PACKAGES, "pyproject.toml"}
    for package in bundle.PACKAGES:
        assert (app / package / "__init__.py").is_file()
    assert [path.name for path in app.rglob("*") if path.is_file() and path.suffix != ".py"] == ["pyproject.toml"]


def test_the_components_are_in_the_app(tmp_path):
    app = bundle.stage_app(tmp_path)
    for component in description(app)["tool"]["flwr"]["app"]["components"].values():
        module = component.partition(":")[0].replace(".", "/")
        assert (app / f"{module}.py").is_file()


def test_values_take_the_place_of_defaults(tmp_path):
    config = staged_config(tmp_path, {"alpha": 0.5, "output": "a b = 'c'"})
    assert config == {**RunConfig().to_mapping(), "alpha": 0.5, "output": "a b = 'c'"}


def test_an_unknown_key_is_refused(tmp_path):
    with pytest.raises(UserError, match="'alfa'"):
        bundle.stage_app(tmp_path, {"alfa": 0.5})


def test_the_declared_defaults_are_those_of_the_run_config(tmp_path):
    assert staged_config(tmp_path) == RunConfig().to_mapping()


def test_nested_tables_become_dotted_keys(tmp_path, monkeypatch):
    declare(monkeypatch, {"config": {"a": {"b": 1, "c": {"d": "e"}}, "f": False}})
    assert staged_config(tmp_path) == {"a.b": 1, "a.c.d": "e", "f": False}


def test_an_app_without_run_config_has_no_defaults(tmp_path, monkeypatch):
    declare(monkeypatch, {})
    assert staged_config(tmp_path) == {}


def test_an_installed_wheel_brings_its_own_description(tmp_path, monkeypatch):
    for package in (*bundle.PACKAGES, "simulations"):
        (tmp_path / "site" / package).mkdir(parents=True)
        (tmp_path / "site" / package / "__init__.py").touch()
    checkout = Path(bundle.__file__).parents[1] / "pyproject.toml"
    (tmp_path / "site" / "simulations" / bundle.DESCRIPTION_IN_WHEEL).write_text(checkout.read_text())
    monkeypatch.setattr(bundle, "_package_folder", lambda package: tmp_path / "site" / package)
    app = bundle.stage_app(tmp_path / "scratch")
    assert description(app)["project"]["name"] == "fedcof"


def test_a_missing_description_is_a_users_error(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "_package_folder", lambda package: tmp_path / package)
    with pytest.raises(UserError, match="reinstall fedcof"):
        bundle.stage_app(tmp_path / "scratch")


def test_the_checkout_ships_the_app_and_nothing_else():
    fab = build_fab_from_disk(Path(__file__).parents[2])
    names = zipfile.ZipFile(io.BytesIO(fab)).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops - {".info"} == {*bundle.PACKAGES, "pyproject.toml", "README.md", "LICENSE"}
    assert len(fab) < FAB_MAX_SIZE / 6
