"""Trackers: callbacks that hand how a run goes to what draws curves of it."""
