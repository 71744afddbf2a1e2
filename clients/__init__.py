"""One end of the wire: the Flower ClientApp."""
