"""Decoding the bytes of an instance into numbers: formats, codecs, rescale and padding values."""
