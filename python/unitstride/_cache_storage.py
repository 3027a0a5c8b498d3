"""Where a cache keeps keys and values: in one block, a ring, or pages of a shared pool.

All are asked the same: `groups` that can be handled at once, `places` to write new positions to,
and `segments`, in order of position, to read the stored ones from; arrays are views of shape
(sequences, heads, positions, features).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DType = np.dtype[Any]


class Segment(NamedTuple):
    """Positions from `first` on, side by side in memory."""

    first: int
    keys: Array
    values: Array


class Block:
    """One block of memory per sequence, which may be a ring."""

    def __init__(
        self, batch: int, heads: int, capacity: int, features: tuple[int, int], dtype: DType
    ) -> None:
        self.keys, self.values = (
            np.zeros((batch, heads, capacity, width), dtype) for width in features
        )
        self.capacity = capacity

    def writing_groups(self, lengths: Array, counts: Array) -> list[slice]:
        """Return sequences that grow alike together."""
        same = _are_same(lengths.tolist()) and _are_same(counts.tolist())
        return _together(len(lengths)) if same else _one_by_one(len(lengths))

    def reading_groups(self, oldest: Array, lengths: Array) -> list[slice]:
        """Return sequences that lie alike; without a full ring they may differ in length."""
        first, last = oldest.tolist(), lengths.tolist()
        wrapped = max(last, default=0) > self.capacity or max(first, default=0) > 0
        same = not wrapped or (_are_same(last) and _are_same(first))
        return _together(len(last)) if same else _one_by_one(len(last))

    def reserve(self, lengths: Array) -> None:
        """Make room; there is nothing to do."""

    def release(self, lengths: Array) -> None:
        """Give back what is past the lengths; there is nothing to do."""

    def segments(self, entries: slice, first: int, last: int) -> Iterator[Segment]:
        """Go through positions first to last (excluded); at most `capacity` of them."""
        while True:
            slot = first % self.capacity if self.capacity else 0
            count = min(last - first, self.capacity - slot)
            where = (entries, slice(None), slice(slot, slot + count))
            yield Segment(first, self.keys[where], self.values[where])
            first += count
            if first >= last:
                return


class Pages:
    """Pages of one pool; each sequence has a table of its pages.

    The pool is (heads, pages * page size, features), so that pages side by side are one segment.
    New pages follow the last of their sequence where that place is free; others begin in the
    middle of the longest free stretch.
    """

    def __init__(
        self, batch: int, heads: int, size: int, features: tuple[int, int], dtype: DType
    ) -> None:
        self.keys, self.values = (np.zeros((heads, 0, width), dtype) for width in features)
        self.size = size
        self.free = np.zeros(0, bool)
        self.tables: list[list[int]] = [[] for _ in range(batch)]

    def writing_groups(self, lengths: Array, counts: Array) -> list[slice]:
        """Return each sequence by itself: no two share pages."""
        return _one_by_one(len(lengths))

    reading_groups = writing_groups

    def reserve(self, lengths: Array) -> None:
        """Make room for sequences of these lengths; the pool at least doubles when it grows."""
        missing = [
            max(0, -(-int(length) // self.size) - len(table))
            for length, table in zip(lengths, self.tables, strict=True)
        ]
        lack = sum(missing) - int(self.free.sum())
        if lack > 0:
            self._grow(max(lack, len(self.free)))
        for table, count in zip(self.tables, missing, strict=True):
            for _ in range(count):
                page = self._choose(table)
                self.free[page] = False
                table.append(page)

    def _grow(self, pages: int) -> None:
        grown = []
        for pool in (self.keys, self.values):
            heads, used, width = pool.shape
            wider = np.zeros((heads, used + pages * self.size, width), pool.dtype)
            wider[:, :used] = pool
            grown.append(wider)
        self.keys, self.values = grown
        self.free = np.concatenate([self.free, np.ones(pages, bool)])

    def _choose(self, table: list[int]) -> int:
        """Return the free page that keeps sequences together."""
        if table and table[-1] + 1 < len(self.free) and self.free[table[-1] + 1]:
            return table[-1] + 1
        edges = np.flatnonzero(np.diff(np.concatenate([[False], self.free, [False]])))
        starts, ends = edges[::2], edges[1::2]
        longest = int(np.argmax(ends - starts))
        start, end = int(starts[longest]), int(ends[longest])
        return start if start == 0 else (start + end) // 2

    def release(self, lengths: Array) -> None:
        """Give back the pages past the lengths."""
        for length, table in zip(lengths, self.tables, strict=True):
            kept = -(-int(length) // self.size)
            self.free[table[kept:]] = True
            del table[kept:]

    def segments(self, entries: slice, first: int, last: int) -> Iterator[Segment]:
        """Go through positions first to last (excluded) of one sequence."""
        table = self.tables[entries.start]
        while True:
            number, inside = divmod(first, self.size)
            page = table[number] if first < last else 0
            end = number + 1
            while end * self.size < last and table[end] == table[end - 1] + 1:
                end += 1
            slot, count = page * self.size + inside, min(last, end * self.size) - first
            where = (None, slice(None), slice(slot, slot + max(count, 0)))
            yield Segment(first, self.keys[where], self.values[where])
            first += count
            if first >= last:
                return


def _are_same(numbers: list[int]) -> bool:
    return len(set(numbers)) < 2


def _together(batch: int) -> list[slice]:
    return [slice(0, batch)]


def _one_by_one(batch: int) -> list[slice]:
    return [slice(entry, entry + 1) for entry in range(batch)]
