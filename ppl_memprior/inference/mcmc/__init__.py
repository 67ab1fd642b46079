"""Markov chains: NUTS, NUTS with jumps between modes, and exact updates of the example."""
