"""Tests of links over an engine: its clients against real servers."""
