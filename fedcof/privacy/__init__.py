"""Differential privacy: the mechanism, its noise, and taking it off."""
