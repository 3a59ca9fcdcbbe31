"""From the instances of a series to volumes: stacks and verdicts, decoding, rescale, geometry. Pure; reads no files."""

from builder.imaging.stacks.options import VolumeOptions as Volumes

__all__ = ["Volumes"]
