"""Runners, clusters and the pipeline that drives the stages: the only room that knows dask."""
