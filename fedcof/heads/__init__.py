"""Classifiers, and the closed forms that give them."""
