"""Whose samples: datasets, partitions, node data, virtual clients, precomputed features."""
