"""Rules by which a server merges the networks that clients have trained."""
