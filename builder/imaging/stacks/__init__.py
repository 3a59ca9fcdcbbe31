"""Dividing the instances of a series into stacks: which belong together, in which order and at which spacing."""
