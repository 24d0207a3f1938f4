"""Presence states and diffs of the topics that clients follow."""
