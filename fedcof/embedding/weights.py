"""The words that stand for a backbone's weights, beside the path of a file."""

PRETRAINED = "pretrained"
RANDOM = "none"
