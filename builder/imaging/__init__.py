"""Making volumes from the instances of a series: stacks, verdicts, decoding, rescale, geometry. It reads no files."""

from builder.imaging.stacks.options import VolumeOptions as Volumes

__all__ = ["Volumes"]
