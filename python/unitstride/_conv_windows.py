"""Convolution with channels as contraction of windows, which are views: no copy per tap."""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from operator import index
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import ArrayLike, NDArray

from unitstride import _arguments, _conv_channels, _outputs
from unitstride.einsum import einsum

Array = NDArray[Any]
DType = np.dtype[Any]
Size = int | Sequence[int]
Padding = int | str | Sequence[int]

# Labels: n batch, g group, o and c channels of a group, y x places, i j taps.
_PLACES, _TAPS = "yx", "ij"

# Gradients of up to so many channels are found for all taps at once, where that is much.
_FEW_CHANNELS, _MANY_COLUMNS = 4, 1 << 18


@dataclass(frozen=True)
class Conv:
    """A checked problem: x (batch, channels, *lengths), w (outputs, channels of a group, *taps)."""

    x: Array
    w: Array
    bias: Array | None
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]  # zeros before each line, and after it
    after: tuple[int, ...]
    groups: int
    places: tuple[int, ...]  # outputs along each axis
    batched: bool

    @property
    def taps(self) -> tuple[int, ...]:
        """Elements of the kernel along each axis."""
        return self.w.shape[2:]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result, with a batch."""
        return (self.x.shape[0], self.w.shape[0], *self.places)


def _each(function: str, argument: str, value: Any, axes: int, least: int) -> tuple[int, ...]:
    """Return one integer for each axis."""
    kind = f"an integer of {least} or more, or {axes} of them"
    try:
        sizes = (index(value),) * axes
    except TypeError:
        sizes = ()
    try:
        sizes = sizes or tuple(index(item) for item in value)
    except TypeError:
        raise TypeError(f"{function}: `{argument}` must be {kind}, got {value!r}") from None
    if len(sizes) != axes or any(size < least for size in sizes):
        raise ValueError(f"{function}: `{argument}` must be {kind}, got {value!r}")
    return sizes


def _pads(
    function: str, padding: Any, stride: tuple[int, ...], reach: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the zeros before and after each axis; `reach` is dilation * (taps - 1)."""
    if isinstance(padding, str):
        if padding == "valid":
            return (0,) * len(reach), (0,) * len(reach)
        if padding != "same":
            raise ValueError(
                f'{function}: `padding` must be integers, "same" or "valid", got {padding!r}'
            )
        if any(step != 1 for step in stride):
            raise ValueError(f'{function}: `stride` must be 1 with padding="same", got {stride}')
        return tuple(n // 2 for n in reach), tuple(n - n // 2 for n in reach)
    sizes = _each(function, "padding", padding, len(reach), 0)
    return sizes, sizes


def prepare(
    function: str,
    x: ArrayLike,
    w: ArrayLike,
    bias: ArrayLike | None,
    axes: int,
    stride: Size,
    padding: Padding,
    dilation: Size,
    groups: int,
) -> Conv:
    """Check the arguments of a convolution over `axes` axes."""
    signal, kernel = (_arguments.as_array(function, n, a) for n, a in (("x", x), ("w", w)))
    if signal.ndim not in (axes + 1, axes + 2):
        raise ValueError(
            f"{function}: `x` must have {axes + 2} dimensions (batch, channels, ...) or "
            f"{axes + 1}, got shape {signal.shape}"
        )
    if kernel.ndim != axes + 2 or 0 in kernel.shape[2:]:
        raise ValueError(
            f"{function}: `w` must have {axes + 2} dimensions (outputs, channels / groups, taps "
            f"...) and taps along each axis, got shape {kernel.shape}"
        )
    batched = signal.ndim == axes + 2
    signal = signal if batched else signal[None]
    steps = _each(function, "stride", stride, axes, 1)
    spread = _each(function, "dilation", dilation, axes, 1)
    count = _each(function, "groups", groups, 1, 1)[0]
    if signal.shape[1] != kernel.shape[1] * count:
        raise ValueError(
            f"{function}: `w` must have {signal.shape[1]} channels / {count} groups, "
            f"got shape {kernel.shape}"
        )
    if kernel.shape[0] % count:
        raise ValueError(
            f"{function}: `groups` must divide the {kernel.shape[0]} outputs of `w`, got {count}"
        )
    reach = tuple(d * (m - 1) for d, m in zip(spread, kernel.shape[2:], strict=True))
    before, after = _pads(function, padding, steps, reach)
    lengths = [n + p + q for n, p, q in zip(signal.shape[2:], before, after, strict=True)]
    if any(length <= far for length, far in zip(lengths, reach, strict=True)):
        raise ValueError(
            f"{function}: `w` must not reach beyond the padded lengths {tuple(lengths)} of `x`, "
            f"got {tuple(far + 1 for far in reach)} with its dilation"
        )
    places = tuple(
        (n - far - 1) // step + 1 for n, far, step in zip(lengths, reach, steps, strict=True)
    )
    # Where there is one of them, it does not matter how far the next one would be.
    steps = tuple(1 if n == 1 else step for n, step in zip(places, steps, strict=True))
    spread = tuple(1 if m == 1 else d for m, d in zip(kernel.shape[2:], spread, strict=True))
    dtype = _arguments.wider(signal.dtype, kernel.dtype)
    if math.prod((*signal.shape[:2], *lengths)) > sys.maxsize // dtype.itemsize:
        raise ValueError(
            f"{function}: `padding` must leave an array that can be addressed, got {padding!r}"
        )
    offset = None
    if bias is not None:
        offset = _arguments.as_array(function, "bias", bias)
        _arguments.check_shape(function, "bias", offset, kernel.shape[:1])
        offset = offset.astype(dtype, copy=False)
    signal, kernel = signal.astype(dtype, copy=False), kernel.astype(dtype, copy=False)
    return Conv(signal, kernel, offset, steps, spread, before, after, count, places, batched)


def _at(*places: Any) -> Any:
    """Return an index of the last axes."""
    return (Ellipsis, *places)


def padded(x: Array, before: Sequence[int], after: Sequence[int]) -> Array:
    """Return x with zeros around its last axes, or without what negative numbers cut off."""
    cut = [slice(max(-p, 0), n - max(-q, 0)) for p, q, n in _ends(x, before, after)]
    x = x[_at(*cut)]
    before, after = [max(p, 0) for p in before], [max(q, 0) for q in after]
    if not any(before) and not any(after):
        return x
    axes = len(before)
    lengths = [p + n + q for p, q, n in _ends(x, before, after)]
    result = _outputs.fresh(x, (*x.shape[:-axes], *lengths))
    inner = tuple(slice(p, p + n) for p, _, n in _ends(x, before, after))
    for axis, chosen in enumerate(inner):
        outside = [slice(None)] * axes
        for side in (slice(0, chosen.start), slice(chosen.stop, None)):
            outside[axis] = side
            result[_at(*outside)] = 0
    result[_at(*inner)] = x
    return result


def _ends(x: Array, before: Sequence[int], after: Sequence[int]) -> list[tuple[int, int, int]]:
    return list(zip(before, after, x.shape[-len(before) :], strict=True))


def windows(
    x: Array,
    groups: int,
    places: Sequence[int],
    taps: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Array:
    """View padded x as (batch, groups, channels of a group, *places, *taps)."""
    axes = len(taps)
    batch, channel, *steps = x.strides
    own = x.shape[1] // groups
    shape = (x.shape[0], groups, own, *places, *taps)
    strides = (
        batch,
        own * channel,
        channel,
        *(step * s for step, s in zip(steps, stride, strict=True)),
        *(step * d for step, d in zip(steps, dilation, strict=True)),
    )
    assert len(shape) == 3 + 2 * axes
    return as_strided(x, shape, strides, writeable=False)


def grouped(w: Array, groups: int) -> Array:
    """View (outputs, channels, *taps) as (groups, outputs of a group, channels, *taps)."""
    return w.reshape(groups, w.shape[0] // groups, *w.shape[1:])


def by_group(array: Array, groups: int) -> Array:
    """View (batch, channels, *lengths) as (batch, groups, channels of a group, *lengths)."""
    batch, channels, *lengths = array.shape
    return array.reshape(batch, groups, channels // groups, *lengths)


def labels(axes: int) -> tuple[str, str]:
    """Return the labels of places and of taps."""
    return _PLACES[-axes:], _TAPS[-axes:]


def forward_on_core(function: str, conv: Conv, out: Array) -> bool:
    """Write the convolution and its bias into `out`, where the core does that faster."""
    place = (conv.groups, conv.before, conv.stride, conv.dilation)
    return _conv_channels.run(function, conv.x, conv.w, conv.bias, out, *place)


def forward(conv: Conv, out: Array, begun: bool) -> None:
    """Write the convolution into `out`, (batch, outputs, *places); added to it where begun."""
    spread = padded(conv.x, conv.before, conv.after)
    view = windows(
        spread,
        conv.groups,
        conv.places,
        conv.taps,
        conv.stride,
        conv.dilation,
    )
    places, taps = labels(len(conv.taps))
    target = by_group(out, conv.groups)
    assert np.may_share_memory(target, out) or not out.size
    einsum(
        f"ngc{places}{taps},goc{taps}->ngo{places}",
        view,
        grouped(conv.w, conv.groups),
        out=target,
        beta=1.0 if begun else 0.0,
    )


class _Class(NamedTuple):
    """Elements of x along an axis that meet the same taps: every stride-th of them."""

    chosen: slice  # of x
    taps: slice  # in reverse order
    taken: int  # taps
    before: int  # zeros that the cotangent needs
    after: int


def _classes(conv: Conv, axis: int) -> list[_Class]:
    """Return the classes of an axis; one for each step of the stride."""
    step, spread, taps = conv.stride[axis], conv.dilation[axis], conv.taps[axis]
    pad, length = conv.before[axis], conv.x.shape[2 + axis]
    found = []
    for rest in range(step):
        # Elements at step * a + rest - pad meet output a - m with tap rest + step * m.
        first, last = -(-(pad - rest) // step), (pad + length - 1 - rest) // step
        count = max(0, -(-(taps - rest) // step))
        if first > last:
            continue
        reach = spread * (count - 1)
        found.append(
            _Class(
                slice(step * first + rest - pad, None, step),
                slice(rest + step * (count - 1), rest - step if rest >= step else None, -step),
                count,
                reach - first,
                last - (conv.places[axis] - 1),
            )
        )
    return found


def input_gradient(function: str, conv: Conv, cotangent: Array) -> Array:
    """Return the gradient of x: the cotangent under the kernel turned round."""
    if any(s > 1 and d > 1 for s, d in zip(conv.stride, conv.dilation, strict=True)):
        return _input_gradient_by_taps(conv, cotangent)
    if _has_few_channels(conv, cotangent):
        return _input_gradient_by_columns(conv, cotangent)
    result = _outputs.fresh(conv.x, conv.x.shape)
    axes = len(conv.taps)
    places, taps = labels(axes)
    w = grouped(conv.w, conv.groups)
    target = by_group(result, conv.groups)
    for chosen in product(*(_classes(conv, axis) for axis in range(axes))):
        part = target[_at(*(own.chosen for own in chosen))]
        if any(own.taken == 0 for own in chosen):
            part[...] = 0
            continue
        turned = w[_at(*(own.taps for own in chosen))]
        before, ones = tuple(own.before for own in chosen), (1,) * axes
        exchanged = np.moveaxis(turned, 1, 2).reshape(-1, turned.shape[1], *turned.shape[3:])
        whole = result[_at(*(own.chosen for own in chosen))]
        place = (conv.groups, before, ones, conv.dilation)
        if _conv_channels.run(function, cotangent, exchanged, None, whole, *place):
            continue
        spread = padded(cotangent, before, [o.after for o in chosen])
        view = windows(
            spread, conv.groups, part.shape[3:], [own.taken for own in chosen], ones, conv.dilation
        )
        einsum(f"ngo{places}{taps},goc{taps}->ngc{places}", view, turned, out=part)
    return result


def _has_few_channels(conv: Conv, cotangent: Array) -> bool:
    """Return whether products that end in the channels of x would leave most lanes empty."""
    channels, taps = conv.w.shape[1], math.prod(conv.taps)
    return (
        channels <= _FEW_CHANNELS
        and taps >= 4
        and cotangent.dtype in (np.float32, np.float64)
        and channels * taps * math.prod(conv.places) >= _MANY_COLUMNS
    )


def _input_gradient_by_columns(conv: Conv, cotangent: Array) -> Array:
    """Multiply for all taps of an image at once, and add each tap's part where it reads."""
    places, taps = labels(len(conv.taps))
    w = grouped(conv.w, conv.groups)
    slope = by_group(cotangent, conv.groups)
    wide, spread = _wide_gradient(conv)
    equation = f"go{places},goc{taps}->{taps}gc{places}"
    for image in range(len(slope)):
        columns = np.asarray(einsum(equation, slope[image], w))
        for tap, met in _places_of_taps(conv):
            target = spread[image][_at(*met)]
            target += columns[tap]
    return _without_ends(conv, wide)


def _input_gradient_by_taps(conv: Conv, cotangent: Array) -> Array:
    """Add each tap's part to the places that it reads."""
    places, _ = labels(len(conv.taps))
    w = grouped(conv.w, conv.groups)
    slope = by_group(cotangent, conv.groups)
    wide, spread = _wide_gradient(conv)
    for tap, met in _places_of_taps(conv):
        target = spread[_at(*met)]
        einsum(f"ngo{places},goc->ngc{places}", slope, w[_at(*tap)], out=target, beta=1.0)
    return _without_ends(conv, wide)


def _places_of_taps(conv: Conv) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    for tap in product(*map(range, conv.taps)):
        yield (
            tap,
            tuple(
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, n, s in zip(tap, conv.dilation, conv.places, conv.stride, strict=True)
            ),
        )


def _wide_gradient(conv: Conv) -> tuple[Array, Array]:
    """Return zeros for x and what lies around it, and the same by groups."""
    ends = _ends(conv.x, conv.before, conv.after)
    wide = _outputs.fresh(conv.x, (*conv.x.shape[:2], *(p + n + q for p, q, n in ends)))
    wide[...] = 0
    return wide, by_group(wide, conv.groups)


def _without_ends(conv: Conv, wide: Array) -> Array:
    ends = _ends(conv.x, conv.before, conv.after)
    return np.ascontiguousarray(wide[_at(*(slice(p, p + n) for p, _, n in ends))])


def weight_gradient(function: str, conv: Conv, cotangent: Array) -> Array:
    """Return the gradient of w."""
    result = np.empty(conv.w.shape, conv.w.dtype)
    place = (conv.groups, conv.before, conv.stride, conv.dilation)
    if _conv_channels.weight_gradient(function, conv.x, cotangent, result, *place):
        return result
    view = windows(
        padded(conv.x, conv.before, conv.after),
        conv.groups,
        conv.places,
        conv.taps,
        conv.stride,
        conv.dilation,
    )
    places, taps = labels(len(conv.taps))
    slope = by_group(cotangent, conv.groups)
    equation = f"ngo{places},ngc{places}{taps}->goc{taps}"
    return np.asarray(einsum(equation, slope, view)).reshape(conv.w.shape)
