"""From the instances of a series to stacks: what belongs together, in which order, how far apart, and a verdict."""
