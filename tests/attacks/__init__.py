"""Attacks on real servers, with honest clients beside them that must not notice."""
