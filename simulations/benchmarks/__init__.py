"""Measurements of the package itself, each run as ``python -m simulations.benchmarks.NAME``."""
