"""A file of examples that says what has been read of it."""

from __future__ import annotations

import numpy as np


class CountedFile:
    """A memory-mapped array that says which rows have been read, as Zarr's are read.

    Attributes:
        rows: numbers of the rows, in the order in which they have been read.
        largest: most rows that have been read at once.
    """

    def __init__(self, path):
        self.path = path
        self.mapped = np.load(path, mmap_mode="r")
        self.shape, self.dtype = self.mapped.shape, self.mapped.dtype
        self.chunks = (1, *self.shape[1:])
        self.forget()

    def forget(self):
        self.rows, self.largest = [], 0

    def __getitem__(self, key):
        read = np.arange(len(self.mapped))[key].ravel().tolist()
        self.rows += read
        self.largest = max(self.largest, len(read))
        return np.asarray(self.mapped[key])
