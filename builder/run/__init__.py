"""Runners, clusters, and the pipeline that drives the stages. Only this package imports dask."""
