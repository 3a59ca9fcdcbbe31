"""Datasets once they are published: finding and comparing them, and what is reported of their use."""
