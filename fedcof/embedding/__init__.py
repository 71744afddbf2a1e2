"""Images to features: backbones, decoding, the feature cache."""
