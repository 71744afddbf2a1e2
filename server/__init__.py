"""The other end of the wire: the Flower ServerApp and its strategies."""
