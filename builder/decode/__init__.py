"""Encoded pixels: how an instance states them, the checks before a decoder sees them, and decoders that can crash."""
