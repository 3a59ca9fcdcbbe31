"""Catalog records of a dataset: facts gathered once, rendered many times, nothing invented.

``statement`` holds what people say, ``facts`` what is known, ``documents`` renders all records; one file each.
"""
