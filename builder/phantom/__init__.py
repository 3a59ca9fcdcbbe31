"""A synthetic archive whose truth is known in closed form: for demos, tests and benchmarks."""
