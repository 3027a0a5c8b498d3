"""A cache of keys and values for decoding token by token."""

from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from unitstride import _arguments, _attention_calls
from unitstride._attention_calls import ScoreOptions
from unitstride._cache_arguments import (
    check_columns,
    check_per_sequence,
    check_size,
    columns,
    of_entries,
)
from unitstride._cache_storage import Block, Pages
from unitstride._rotary import rotary as _rotate
from unitstride.attention import attention, merge_attention

Array = NDArray[Any]

_ROTARY_OPTIONS = ("base", "frequencies", "dimensions", "interleaved")


class KVCache:
    """Keys and values of tokens seen so far, appended in place and attended to.

    Parameters
    ----------
    batch : int
        How many sequences; each has a length of its own.
    heads : int
        Heads of keys and values.
    capacity : int or None
        How many positions a sequence may have, or keeps where it is a ring. None, for pages only,
        is without limit.
    features : int
        Features of a key.
    value_features : int, optional
        Features of a value, by default those of a key.
    dtype : dtype, default: float32
        float16, bfloat16, float32 or float64.
    ring : bool, default: False
        Keep the last `capacity` positions of each sequence and forget older ones, as windows of
        attention allow.
    page_size : int, optional
        Keep positions in pages of this size that all sequences share and that are taken as they
        are needed, instead of one block of `capacity` for each.
    rotary : mapping, optional
        Turn keys when they are appended, and queries, by their positions: options `base`,
        `frequencies`, `dimensions`, `interleaved` of `rotary`; ``{}`` for its defaults.

    Attributes
    ----------
    lengths : ndarray of int64, shape (batch,)
        How many positions each sequence has had; a copy.
    length : int
        The largest of them.
    nbytes : int
        The memory of the keys and values.

    Raises
    ------
    TypeError, ValueError
        For sizes that are no integers or too small, a dtype that is none of the four, unknown
        options of `rotary`, and a ring of pages.

    Notes
    -----
    Appending takes time in proportion to what is appended, attending O(heads * queries * length *
    features) without copies: a ring is read as two parts and pages as runs of neighbours, merged
    by their log-sum-exp as by `merge_attention`. Queries of a wider dtype than the cache's cost a
    copy of it in theirs. Sequences of different lengths in pages or in a full ring are attended to
    one after the other.

    Examples
    --------
    >>> import numpy as np
    >>> from unitstride import KVCache
    >>> cache = KVCache(1, 1, 8, 2)
    >>> for token in range(3):
    ...     cache.append(np.zeros((1, 1, 1, 2)), np.full((1, 1, 1, 2), token))
    >>> cache.attend(np.ones((1, 1, 1, 2), np.float32))
    array([[[[1., 1.]]]], dtype=float32)
    >>> cache.length
    3
    """

    def __init__(
        self,
        batch: int,
        heads: int,
        capacity: int | None,
        features: int,
        value_features: int | None = None,
        *,
        dtype: DTypeLike = np.float32,
        ring: bool = False,
        page_size: int | None = None,
        rotary: Mapping[str, Any] | None = None,
    ) -> None:
        checked = _arguments.check_dtype("KVCache", dtype)
        self._dtype = np.dtype(np.float32) if checked is None else checked
        self._batch, self._heads = check_size("batch", batch, 0), check_size("heads", heads, 1)
        width = check_size("features", features, 0)
        depth = width if value_features is None else check_size("value_features", value_features, 0)
        self._features = (width, depth)
        self._ring = bool(ring)
        self._rotary = None if rotary is None else dict(rotary)
        for name in self._rotary or ():
            if name not in _ROTARY_OPTIONS:
                raise TypeError(
                    f"KVCache: `rotary` must have options among {', '.join(_ROTARY_OPTIONS)}, "
                    f"got {name!r}"
                )
        if self._rotary is not None:
            _rotate(np.zeros((1, width)), **self._rotary)
        self._capacity = self._check_capacity(capacity, page_size)
        self._storage = self._make_storage(page_size)
        self._lengths = np.zeros(self._batch, np.int64)
        self._oldest = np.zeros(self._batch, np.int64)

    def _check_capacity(self, capacity: Any, page_size: Any) -> int | None:
        if page_size is not None and self._ring:
            raise ValueError("KVCache: `ring` must be False with `page_size`, got True")
        if capacity is None:
            if page_size is None:
                raise ValueError("KVCache: `capacity` must be given without `page_size`, got None")
            return None
        return check_size("capacity", capacity, 1)

    def _make_storage(self, page_size: Any) -> Block | Pages:
        if page_size is not None:
            size = check_size("page_size", page_size, 1)
            return Pages(self._batch, self._heads, size, self._features, self._dtype)
        assert self._capacity is not None
        return Block(self._batch, self._heads, self._capacity, self._features, self._dtype)

    @property
    def lengths(self) -> Array:
        """Return how many positions each sequence has had."""
        return self._lengths.copy()

    @property
    def length(self) -> int:
        """Return the largest length of a sequence."""
        return int(self._lengths.max(initial=0))

    @property
    def nbytes(self) -> int:
        """Return the bytes of the keys and values, used or not."""
        return int(self._storage.keys.nbytes + self._storage.values.nbytes)

    def _check_tokens(self, argument: str, value: ArrayLike, width: int) -> Array:
        array = _arguments.as_array("KVCache.append", argument, value)
        known = (self._batch, self._heads, width)
        if array.ndim != 4 or (*array.shape[:2], array.shape[3]) != known:
            raise ValueError(
                f"KVCache.append: `{argument}` must have shape ({self._batch}, {self._heads}, "
                f"tokens, {width}), got {array.shape}"
            )
        if array.dtype == self._dtype:
            return array
        with np.errstate(all="ignore"):
            return array.astype(self._dtype)

    def append(self, key: ArrayLike, value: ArrayLike, *, counts: ArrayLike | None = None) -> None:
        """Append tokens to every sequence.

        Parameters
        ----------
        key : array_like, shape (batch, heads, tokens, features)
            Turned by their positions where the cache has `rotary`; rounded to its dtype.
        value : array_like, shape (batch, heads, tokens, value_features)
        counts : array_like of int, shape (batch,), optional
            How many of the tokens each sequence takes, the first ones; by default all.

        Raises
        ------
        TypeError, ValueError
            For arrays or counts that do not fit, and for more positions than `capacity`; nothing
            is appended then.
        """
        name = "KVCache.append"
        keys = self._check_tokens("key", key, self._features[0])
        values = self._check_tokens("value", value, self._features[1])
        tokens = keys.shape[2]
        if values.shape[2] != tokens:
            raise ValueError(
                f"{name}: `value` must have the {tokens} tokens of `key`, got {values.shape[2]}"
            )
        given = tokens if counts is None else counts
        added = check_per_sequence(name, "counts", given, self._batch, tokens)
        lengths = self._lengths + added
        if self._capacity is not None and not self._ring and (lengths > self._capacity).any():
            raise ValueError(
                f"{name}: `key` must leave sequences of at most {self._capacity} positions "
                f"(the capacity), got {lengths.max()}"
            )
        self._storage.reserve(lengths)
        for entries in self._storage.writing_groups(self._lengths, added):
            start = max(self._lengths[entries].tolist(), default=0)
            self._write(entries, start, max(added[entries].tolist(), default=0), keys, values)
        self._lengths = lengths
        if self._ring and self._capacity is not None:
            self._oldest = np.maximum(self._oldest, lengths - self._capacity)

    def _write(self, entries: slice, start: int, count: int, keys: Array, values: Array) -> None:
        skip = max(0, count - self._capacity) if self._capacity is not None else 0
        for segment in self._storage.segments(entries, start + skip, start + count):
            done = segment.first - start
            part = (entries, slice(None), slice(done, done + segment.keys.shape[2]))
            segment.values[...] = values[part]
            if self._rotary is None:
                segment.keys[...] = keys[part]
            else:
                where = np.arange(segment.first, segment.first + segment.keys.shape[2])
                _rotate(keys[part], where, **self._rotary, out=segment.keys)

    def attend(
        self,
        query: ArrayLike,
        *,
        counts: ArrayLike | None = None,
        causal: bool = True,
        return_lse: bool = False,
        **options: Unpack[ScoreOptions],
    ) -> Any:
        """Attend from the last tokens of each sequence to all that the cache holds.

        Parameters
        ----------
        query : array_like, shape (batch, query_heads, tokens, features)
            Of the last `tokens` positions; turned by them where the cache has `rotary`.
        counts : array_like of int, shape (batch,), optional
            How many of the tokens each sequence has, the first ones, where they differ; the
            results of the others are 0.
        causal : bool, default: True
            Each token sees the positions up to its own. False: all positions; `window` then has no
            diagonal and is refused.
        return_lse : bool, default: False
            Also return the log-sum-exp of each row.
        **options
            `mask`, `bias`, `window`, `scale`, `softcap`, `alibi_slopes` and `sinks` of `attention`.
            The keys of `mask` and `bias` are the positions from 0 to `length`.

        Returns
        -------
        ndarray, shape (batch, query_heads, tokens, value_features)
            As of `attention`, with a pair where `return_lse` is True. A ring attends to what it
            still holds: for windows of w keys to the left, give it a capacity of w + tokens.

        Raises
        ------
        TypeError, ValueError
            As for `attention`, and for queries or counts that do not fit.
        """
        name = "KVCache.attend"
        _attention_calls.check_names(name, options, _attention_calls.SCORE_NAMES)
        array = _arguments.as_array(name, "query", query)
        if array.ndim != 4 or array.shape[0] != self._batch or array.shape[3] != self._features[0]:
            raise ValueError(
                f"{name}: `query` must have shape ({self._batch}, query heads, tokens, "
                f"{self._features[0]}), got {array.shape}"
            )
        given = array.shape[2] if counts is None else counts
        number = check_per_sequence(name, "counts", given, self._batch, array.shape[2])
        if not causal and options.get("window") is not None:
            raise ValueError(f"{name}: `window` must be None without `causal`")
        for option, columned in (("mask", options.get("mask")), ("bias", options.get("bias"))):
            if columned is not None:
                check_columns(name, option, columned, self.length)
        starts = self._lengths - number
        if self._rotary is not None:
            where = starts[:, None, None] + np.arange(array.shape[2])
            array = _rotate(array, where, **self._rotary)
        dtype = _arguments.wider(array.dtype, self._dtype)
        groups = self._storage.reading_groups(self._oldest, self._lengths)
        if len(groups) == 1:
            diagonal = starts if causal else None
            out, lse = self._attend_group(groups[0], array, number, diagonal, options)
            out = out.astype(dtype, copy=False)
            lse = lse.astype(_arguments.wider(dtype, np.dtype(np.float32)), copy=False)
            return (out, lse) if return_lse else out
        shape = (*array.shape[:3], self._features[1])
        out = np.zeros(shape, dtype)
        lse = np.empty(shape[:-1], _arguments.wider(dtype, np.dtype(np.float32)))
        for entries in groups:
            diagonal = starts[entries] if causal else None
            out[entries], lse[entries] = self._attend_group(
                entries, array[entries], number[entries], diagonal, options
            )
        return (out, lse) if return_lse else out

    def _attend_group(
        self,
        entries: slice,
        query: Array,
        counts: Array,
        starts: Array | None,
        options: ScoreOptions,
    ) -> tuple[Array, Array]:
        """Attend to each segment and merge the results in the order of positions."""
        mine: Any = dict(options)
        for option, dimensions in (("mask", 4), ("bias", 4), ("alibi_slopes", 2), ("sinks", 2)):
            if option in mine:
                mine[option] = of_entries(mine[option], entries, dimensions)
        mask, bias = mine.pop("mask", None), mine.pop("bias", None)
        oldest, lengths = self._oldest[entries], self._lengths[entries]
        found: tuple[Array, Array] | None = None
        first, last = max(oldest.tolist(), default=0), max(lengths.tolist(), default=0)
        for segment in self._storage.segments(entries, first, last):
            part = attention(
                query,
                segment.keys,
                segment.values,
                mask=columns(mask, segment),
                bias=columns(bias, segment),
                causal=False if starts is None else starts - segment.first,
                query_lengths=counts,
                key_lengths=np.minimum(
                    np.maximum(lengths - segment.first, 0), segment.keys.shape[2]
                ),
                return_lse=True,
                **mine,
            )
            if found is None:
                found, mine["sinks"] = part, None
            else:
                out, lse = (x.astype(np.float64, copy=False) for x in found)
                found = merge_attention(out, lse, *part)
        assert found is not None
        return found

    def truncate(self, lengths: ArrayLike) -> None:
        """Forget the positions from `lengths` on: one length, or one per sequence.

        Raises
        ------
        TypeError, ValueError
            For lengths that are no integers, more than there are, or (except 0) so few that a ring
            has already forgotten what was before.
        """
        name = "KVCache.truncate"
        kept = check_per_sequence(name, "lengths", lengths, self._batch, self._lengths)
        lost = (kept < self._oldest) & (kept > 0)
        if lost.any():
            raise ValueError(
                f"{name}: `lengths` must be 0 or at least {self._oldest[lost][0]} "
                f"(older positions are forgotten), got {kept[lost][0]}"
            )
        self._lengths = kept
        self._oldest = np.where(kept == 0, 0, self._oldest)
        self._storage.release(kept)

    def reset(self) -> None:
        """Forget everything; pages go back to the pool."""
        self.truncate(0)

    def __repr__(self) -> str:
        form = "ring" if self._ring else "pages" if isinstance(self._storage, Pages) else "block"
        return (
            f"KVCache({form} of {self._dtype.name}, batch={self._batch}, heads={self._heads}, "
            f"features={self._features}, capacity={self._capacity}, length={self.length})"
        )
