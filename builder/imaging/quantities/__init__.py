"""Determining what the numbers of an image measure: SUV, b-values, and Philips' private MR scale."""
