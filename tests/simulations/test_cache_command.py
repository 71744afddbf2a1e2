"""``fedcof cache``: what is kept is listed, and gone after clearing."""

import pytest

from simulations.scenario import configure


def test_listing_and_clearing(fedcof, capsys):
    from fedcof.data.problem import split_features
    from fedcof.data.virtual_clients import client_indices

    config = configure("digits", ["backbone=test_efficientnet", "weights=none", "image-size=32"])
    assert fedcof("cache", "list") == (0, "")
    table = split_features(config, "test")
    client_indices(config)
    assert len(table.features) == 360
    from simulations import cache_command

    cache_command.show_cache()
    shown = capsys.readouterr().out
    assert "test_efficientnet" in shown
    assert "360" in shown
    assert "1 partition(s)" in shown
    cache_command.empty_cache()
    assert "Freed" in capsys.readouterr().out
    cache_command.show_cache()
    emptied = capsys.readouterr().out
    assert "test_efficientnet" not in emptied
    assert "0 partition(s)" in emptied


def test_what_an_interrupted_embedding_has_kept_is_listed_and_cleared(fedcof, capsys):
    from fedcof.data.problem import split_features
    from simulations import cache_command

    config = configure("digits", ["backbone=test_efficientnet", "weights=none", "image-size=32"])

    def interrupt(_):
        raise KeyboardInterrupt

    assert fedcof("cache", "list") == (0, "")
    with pytest.raises(KeyboardInterrupt):
        split_features(config, "test", interrupt)
    cache_command.show_cache()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "test_efficientnet" in line]
    assert "64 of 360" in line
    assert "no" in line
    cache_command.empty_cache()
    assert "Freed 0.0 MB" not in capsys.readouterr().out
    cache_command.show_cache()
    assert "test_efficientnet" not in capsys.readouterr().out
