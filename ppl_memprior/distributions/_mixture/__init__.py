"""Sums over stored examples: screening, plain differences, and the choice between them."""
