"""Jumps between modes: the kernel, what it proposes from, and the sampler around it."""
