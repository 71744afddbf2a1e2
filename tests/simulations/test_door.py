"""nginx's configuration for deploy-local: the one that administrators use, from a checkout or from a wheel."""

import tomllib
from pathlib import Path

import pytest

from fedcof.errors import UserError
from simulations import door

ROOT = Path(__file__).parents[2]


def test_ports_are_filled_in_and_nothing_else_changes():
    text = door.configuration(4433, 9093)
    assert "listen 4433 ssl;" in text
    assert text.count("proxy_pass https://127.0.0.1:9093;") == 2
    original = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    assert len(text.splitlines()) == len(original.splitlines())


def test_a_wheel_has_it_beside_the_code(tmp_path, monkeypatch):
    files = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert files["force-include"]["deploy/nginx.conf"] == f"simulations/{door.CONFIGURATION}"
    installed = tmp_path / "site-packages" / "simulations"
    installed.mkdir(parents=True)
    monkeypatch.setattr(door, "__file__", str(installed / "door.py"))
    with pytest.raises(UserError, match="reinstall fedcof"):
        door.configuration(1, 2)
    (installed / door.CONFIGURATION).write_text("listen PORT; INNER_PORT")
    assert door.configuration(1, 2) == "listen 1; 2"
