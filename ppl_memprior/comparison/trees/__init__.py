"""Draws as labelled trees with the groups that ArviZ reads, made and stored."""
