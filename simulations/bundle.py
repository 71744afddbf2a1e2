"""The Flower app as a folder that ``flwr run`` accepts, from a checkout or from an installed wheel."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tomli_w

from fedcof.errors import UserError
from fedcof.keys import Scalar, unknown_key

PACKAGES = ("fedcof", "clients", "server")
DESCRIPTION_IN_WHEEL = "flower_app.toml"

# Flower's own names take letters, digits and hyphens only, so the caller's folder cannot always serve as the app's.
_APP_FOLDER_NAME = "fedcof-app"


def stage_app(folder: Path, run_config: Mapping[str, Scalar] | None = None) -> Path:
    """Copy the app's packages and description into a new folder.

    Parameters
    ----------
    folder : Path
        Where to make the app's folder; it is made itself where missing.
    run_config : mapping of str to bool, int, float or str, optional
        Values that take the place of the app's defaults.

    Returns
    -------
    Path
        The app, to be given to ``flwr run``.

    Raises
    ------
    UserError
        If a package or the app's description is not installed, or a key is not one of the app's.
    """
    app = folder / _APP_FOLDER_NAME
    app.mkdir(parents=True)
    for package in PACKAGES:
        origin = _package_folder(package)
        for source in _sources(origin):
            target = app / package / source.relative_to(origin)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    (app / "pyproject.toml").write_text(tomli_w.dumps(_staged_description(run_config or {})), encoding="utf-8")
    return app


def _package_folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"The package {package!r} was expected beside fedcof but is missing: reinstall fedcof.")
    return Path(next(iter(spec.submodule_search_locations)))


def _sources(package: Path) -> Iterator[Path]:
    yield from sorted(package.rglob("*.py"))


def _description() -> dict[str, Any]:
    simulations = _package_folder("simulations")
    for path in (simulations / DESCRIPTION_IN_WHEEL, simulations.parent / "pyproject.toml"):
        if path.is_file():
            return tomllib.loads(path.read_text(encoding="utf-8"))
    raise UserError(
        f"The app's description {DESCRIPTION_IN_WHEEL} is missing from {simulations}: reinstall fedcof."
    )


def _flower_table(description: Mapping[str, Any]) -> dict[str, Any]:
    table: dict[str, Any] = description["tool"]["flwr"]["app"]
    return table


def _staged_description(run_config: Mapping[str, Scalar]) -> dict[str, Any]:
    description = _description()
    app = dict(_flower_table(description))
    # Flower refuses a pattern that matches no file, and what the checkout's patterns are for was not copied.
    app.pop("fab-exclude", None)
    app.pop("fab-include", None)
    config = _flatten(app.get("config", {}))
    for key in run_config:
        if key not in config:
            raise unknown_key(key, list(config))
    app["config"] = config | dict(run_config)
    project = {key: description["project"][key] for key in ("name", "version", "description", "license")}
    return {"project": project, "tool": {"flwr": {"app": app}}}


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    flat: dict[str, Scalar] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
