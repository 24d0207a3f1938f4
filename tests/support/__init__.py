"""Helpers that several suites use; this package imports none of the suites."""
