"""Statistics to bytes and back: codecs, entropy coding, dither, rotation, budget."""
