"""What a run is told and what it comes to: run-config, results, ledger, the names of the protocol."""
