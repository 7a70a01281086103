"""Planners: choose what a guarantee leaves free, so that the promise is as strong as it can be."""
