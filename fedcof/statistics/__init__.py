"""What a client knows of its features: class means, moments, groups."""
