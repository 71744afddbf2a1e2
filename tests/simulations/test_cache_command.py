"""``fedcof cache``: what is kept is listed, and gone after clearing."""

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
