"""From the bytes of an instance to numbers: formats, codecs, rescale and padding values."""
