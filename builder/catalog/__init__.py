"""Render the catalog records of a dataset from facts that are gathered once; nothing is invented.

``statement`` holds what people say and ``facts`` what is known. ``documents`` renders every record; each kind of record
has its own module.
"""
