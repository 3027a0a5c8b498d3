"""einsum against NumPy's: random subscripts, dtypes, outputs, views, error texts."""

import re
from typing import Any

import numpy as np
import pytest
from checks import assert_same_bits, dtype_of, fallback, random_for
from einsum_cases import PLACES, assert_close, exact, random_array, random_subscripts

import unitstride
from unitstride import einsum, einsum_path

FLOATS = ("float32", "float64", "complex64", "complex128", "float16")
EXACT = ("int8", "uint8", "int32", "int64", "bool")

CHUNKS = 20
CASES_OF_A_CHUNK = 125


def random_call(random: Any, names: tuple[str, ...]) -> tuple[str, list[Any]]:
    subscripts, shapes = random_subscripts(random)
    if random.random() < 0.8:
        names = (names[int(random.integers(len(names)))],)
    chosen = [names[int(random.integers(len(names)))] for _ in shapes]
    return subscripts, [
        random_array(random, shape, name) for shape, name in zip(shapes, chosen, strict=True)
    ]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_subscripts(chunk: int, isa: str) -> None:
    """2,500 calls: all features, layouts and dtypes mixed, and mixed dtypes in one call."""
    random = random_for("einsum", chunk)
    for _ in range(CASES_OF_A_CHUNK):
        subscripts, arrays = random_call(random, FLOATS)
        before = [array.tobytes() for array in arrays]
        expected = np.einsum(subscripts, *arrays)
        got = einsum(subscripts, *arrays)
        assert np.asarray(got).dtype == expected.dtype, subscripts
        assert isinstance(got, np.ndarray) == isinstance(expected, np.ndarray), subscripts
        assert_close(np.asarray(got, np.asarray(got).dtype.newbyteorder("=")), subscripts, arrays)
        assert [array.tobytes() for array in arrays] == before, subscripts


@pytest.mark.parametrize("chunk", range(4))
def test_random_subscripts_of_exact_dtypes(chunk: int) -> None:
    random = random_for("einsum exact", chunk)
    for _ in range(CASES_OF_A_CHUNK):
        subscripts, arrays = random_call(random, EXACT)
        with np.errstate(all="ignore"):
            expected = np.einsum(subscripts, *arrays)
        got = np.asarray(einsum(subscripts, *arrays))
        assert got.dtype == expected.dtype, subscripts
        np.testing.assert_array_equal(got, expected, subscripts)


def test_random_subscripts_of_bfloat16(isa: str) -> None:
    dtype_of("bfloat16")
    random = random_for("einsum bfloat16")
    for _ in range(CASES_OF_A_CHUNK):
        subscripts, arrays = random_call(random, ("bfloat16",))
        got = np.asarray(einsum(subscripts, *arrays))
        assert got.dtype == dtype_of("bfloat16")
        assert_close(got, subscripts, arrays)


def test_the_fallback_agrees() -> None:
    """Both follow the same bound, so they differ by at most twice as much."""
    random = random_for("einsum fallback")
    for _ in range(CASES_OF_A_CHUNK):
        subscripts, arrays = random_call(random, FLOATS)
        with fallback():
            got = np.asarray(einsum(subscripts, *arrays))
        assert_close(got.astype(got.dtype.newbyteorder("=")), subscripts, arrays)


def test_random_lists_with_any_integers() -> None:
    """The interleaved form with negative and large labels is that of strings."""
    random = random_for("einsum lists")
    for _ in range(CASES_OF_A_CHUNK):
        subscripts, arrays = random_call(random, ("float64",))
        plain = subscripts.replace(" ", "")
        letters = sorted(set(plain) - set(",.->"))
        numbers = sorted(random.choice(np.arange(-500, 500), len(letters), replace=False))
        number_of = dict(zip(letters, map(int, numbers), strict=True))

        def labels(term: str, number_of: Any = number_of) -> list[Any]:
            short = term.replace("...", ".")
            return [Ellipsis if x == "." else number_of[x] for x in short]

        inputs, arrow, output = plain.partition("->")
        call: list[Any] = []
        for array, term in zip(arrays, inputs.split(","), strict=True):
            call += [array, labels(term)]
        if arrow:
            call.append(labels(output))
        assert_same_bits(einsum(*call), einsum(subscripts, *arrays), subscripts)


def test_more_than_52_labels() -> None:
    """A chain of 70 matrices has 71 labels, a cross of two arrays of 30 axes 60."""
    random = random_for("many labels")
    matrices = [random.standard_normal((2, 2)) for _ in range(70)]
    call: list[Any] = []
    for k, matrix in enumerate(matrices):
        call += [matrix, [k, k + 1]]
    expected = np.linalg.multi_dot(matrices)
    np.testing.assert_allclose(einsum(*call, [0, 70]), expected, rtol=1e-10)
    a, b = (np.ones((1,) * 14 + (2,) + (1,) * 15) for _ in range(2))
    result = einsum(a, range(30), b, range(100, 130))
    assert result.shape == a.shape + b.shape
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 30)))
    assert einsum(text, a).shape == a.shape


# Views.


@pytest.mark.parametrize(
    ("subscripts", "shape"),
    [
        ("ij", (2, 3)),
        ("ji", (2, 3)),
        ("ij->ji", (2, 3)),
        ("ijk->kji", (2, 3, 4)),
        ("ii->i", (3, 3)),
        ("iij->ji", (3, 3, 2)),
        ("iii->i", (3, 3, 3)),
        ("...ij->...ji", (2, 3, 4)),
        ("i...i->...i", (3, 2, 3)),
        ("...", (2, 3)),
    ],
)
def test_results_that_are_views_in_numpy_are_views(subscripts: str, shape: Any) -> None:
    for dtype in ("float32", "int16", ">f8", "U3", "M8[s]", "O"):
        x = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
        expected = np.einsum(subscripts, x)
        got = einsum(subscripts, x)
        assert np.shares_memory(got, x)
        assert (got.dtype, got.strides) == (expected.dtype, expected.strides)
        np.testing.assert_array_equal(got, expected)
    x = np.zeros(shape)
    einsum(subscripts, x)[...] = 1
    assert (einsum(subscripts, x) == 1).all()
    x.flags.writeable = False
    assert not einsum(subscripts, x).flags.writeable


def test_what_is_no_view() -> None:
    x = np.arange(6.0).reshape(2, 3)
    for got in (
        einsum("ij->ji", x, dtype="c16"),
        einsum("ij->ji", x, alpha=2),
        einsum("ij->ji", x, out=np.empty((3, 2))),
        einsum(",ij->ji", 1.0, x),
    ):
        assert not np.shares_memory(got, x)
    assert einsum("ij->ji", x, dtype="c16").dtype == np.complex128
    np.testing.assert_array_equal(einsum("ij->ji", x, alpha=2), 2 * x.T)


# Dtypes.

MIXED = ("?", "i1", "u1", "i4", "u4", "i8", "f2", "f4", "f8", "g", "c8", "c16", "G", ">f4", ">c16")


@pytest.mark.parametrize("first", MIXED)
def test_dtypes_are_numpys(first: str) -> None:
    for second in MIXED:
        a, b = np.ones((2, 3), first), np.ones((3, 2), second)
        expected = np.einsum("ij,jk->ik", a, b)
        got = einsum("ij,jk->ik", a, b)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_dtype_and_casting() -> None:
    a = np.ones((2, 2))
    assert einsum("ij,jk", a, a, dtype="f4", casting="same_kind").dtype == np.float32
    assert einsum("ij,jk", a, a, dtype="i8", casting="unsafe").dtype == np.int64
    assert einsum("ij,jk", a, a, dtype="c16").dtype == np.complex128
    assert einsum("i->", np.full(300, 1, "i1"), dtype="i8") == 300
    with pytest.raises(TypeError, match=r"^einsum: operand 0 must be castable by casting='safe'"):
        einsum("ij,jk", a, a, dtype="f4")
    with pytest.raises(TypeError, match=r"^einsum: the result in `out` must be castable"):
        einsum("ij,jk", a, a, out=np.empty((2, 2), "f4"))
    out = np.empty((2, 2), "f4")
    assert einsum("ij,jk", a, a, out=out, casting="same_kind") is out
    np.testing.assert_array_equal(out, 2)


def test_out_takes_part_in_the_dtype_as_in_numpy() -> None:
    ones = np.ones(300, np.int8)
    out = np.zeros((), np.int64)
    assert einsum("i->", ones, out=out) is out
    assert out == np.einsum("i->", ones, out=np.zeros((), np.int64)) == 300
    halves = np.full(300, 300, np.float16)
    assert einsum("i->", halves, out=np.zeros(())) == 90000


def test_real_times_complex_keeps_the_real_operand() -> None:
    """inf * (1 + 0j) has no NaN: the real operand is not given an imaginary part."""
    a, b = np.array([[np.inf]]), np.array([[1 + 1j]])
    result = einsum("ij,jk->ik", a, b)
    if unitstride.show_runtime("dicts")["backend"]["name"] == "native":
        assert result[0, 0] == complex(np.inf, np.inf)


def test_objects() -> None:
    a = np.array([1, 10**30, 3], object)
    assert einsum("i,i->", a, a) == 10 + 10**60
    np.testing.assert_array_equal(einsum("i,j->ij", a, a), np.multiply.outer(a, a))


# Outputs, alpha and beta.


@pytest.mark.parametrize("name", [*FLOATS, "int32"])
def test_alpha_and_beta(name: str, isa: str) -> None:
    random = random_for("alpha", name)
    for _ in range(60):
        subscripts, arrays = random_call(random, (name,))
        arrays = [np.asarray(array, dtype_of(name)) for array in arrays]
        plain = np.asarray(einsum(subscripts, *arrays, order="C"))
        start = random_array(random, plain.shape, name).astype(name)
        alpha, beta = int(random.integers(-2, 3)), int(random.integers(-2, 3))
        out = start.copy()
        assert einsum(subscripts, *arrays, out=out, alpha=alpha, beta=beta) is out
        # Products with small integers are exact but for one rounding each.
        tolerance = {"float16": 4e-3, "int32": 0}.get(name, 1e-5 if "32" in name else 1e-12)
        tolerance = 1e-5 if name == "complex64" else tolerance
        scale = np.max(np.abs(plain), initial=1) + 1
        np.testing.assert_allclose(
            out, alpha * plain + beta * start, rtol=tolerance, atol=tolerance * scale * 4
        )


def test_beta_zero_does_not_read_out() -> None:
    out = np.full((2, 2), np.nan)
    assert einsum("ij,jk->ik", np.ones((2, 3)), np.ones((3, 2)), out=out).tolist() == [[3, 3]] * 2
    out[...] = np.nan
    empty = einsum("ij,jk->ik", np.ones((2, 0)), np.ones((0, 2)), out=out)
    assert empty.tolist() == [[0, 0]] * 2


def test_complex_factors() -> None:
    a = np.arange(4.0).reshape(2, 2)
    z = a + 1j
    np.testing.assert_allclose(einsum("ij,jk->ik", z, a, alpha=2j), 2j * (z @ a))
    np.testing.assert_allclose(einsum("ij,jk->ik", a, a, dtype="c16", alpha=2j), 2j * (a @ a))
    out = z.copy()
    einsum("ij,jk->ik", a, a, out=out, alpha=1j, beta=-1j)
    np.testing.assert_allclose(out, 1j * (a @ a) - 1j * z)
    with pytest.raises(TypeError, match=r"^einsum: `alpha` must be real for a result of float64"):
        einsum("ij,jk->ik", a, a, alpha=1j)
    with pytest.raises(TypeError, match=r"^einsum: `beta` must be a number, got 'x'"):
        einsum("ij,jk->ik", a, a, out=a.copy(), beta="x")
    with pytest.raises(TypeError, match=r"^einsum: `alpha` must be integer for a result of int64"):
        einsum("i->", np.arange(3), alpha=0.5)
    with pytest.raises(ValueError, match=r"^einsum: `alpha` must be in the range of int8, got 300"):
        einsum("i->", np.ones(3, "i1"), alpha=300)
    with pytest.raises(ValueError, match=r"^einsum: `beta` must be 0 without `out`, got 1"):
        einsum("i->", np.arange(3), beta=1)


def test_out_overlaps_operands(isa: str) -> None:
    """Whatever memory `out` shares with operands, the result is the one without `out`."""
    random = random_for("einsum overlap")
    for _ in range(300):
        host = random.standard_normal(400)
        n = int(random.integers(1, 8))

        def view(host: Any = host, n: int = n) -> Any:
            begin = int(random.integers(0, 200))
            flat = host[begin : begin + n * n]
            return (flat.reshape(n, n), flat.reshape(n, n).T, flat[::-1].reshape(n, n))[
                int(random.integers(3))
            ]

        a, b, out = view(), view(), view()
        subscripts = str(random.choice(["ij,jk->ik", "ij,ij->ji", "ij,jk->ki", "ik,kk->ik"]))
        expected = einsum(subscripts, a.copy(), b.copy())
        assert einsum(subscripts, a, b, out=out) is out
        np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("place", [p for p in PLACES if p.writeable], ids=lambda p: p.name)
def test_out_in_any_layout(place: Any, isa: str) -> None:
    random = random_for("einsum out", place.name)
    for name in FLOATS:
        for subscripts, shapes in (
            ("ij,jk->ik", ((5, 7), (7, 6))),
            ("bij,bjk->bki", ((3, 5, 7), (3, 7, 6))),
            ("ij,j->i", ((5, 7), (7,))),
            ("i,j,k->kij", ((3,), (4,), (5,))),
            ("ijk->kj", ((3, 4, 5),)),
        ):
            arrays = [random.standard_normal(shape).astype(name) for shape in shapes]
            expected = np.einsum(subscripts, *arrays)
            out = place(np.zeros_like(expected, order="C"))
            got = einsum(subscripts, *arrays, out=out, casting="equiv")
            assert got is out
            assert_close(out.astype(name), subscripts, arrays)


@pytest.mark.parametrize("order", ["C", "F", "A", "K", None, "c"])
def test_order(order: Any) -> None:
    a, b = np.ones((3, 4)), np.ones((4, 5))
    for first, second in ((a, b), (np.asfortranarray(a), np.asfortranarray(b)), (a, b.copy("F"))):
        got = einsum("ij,jk->ik", first, second, order=order)
        np.testing.assert_array_equal(got, np.full((3, 5), 4.0))
        expected = np.einsum("ij,jk->ik", first, second, order="K" if order is None else order)
        assert got.strides == expected.strides
    kept = einsum("ij,ij->ij", a.T, a.T, order=order)
    assert kept.flags.f_contiguous == (order in ("F", "A", "K", None))


def strides_of_long_axes(array: Any) -> list[int]:
    return [step for step, size in zip(array.strides, array.shape, strict=True) if size > 1]


@pytest.mark.parametrize("chunk", range(4))
def test_results_have_numpys_order_in_memory(chunk: int) -> None:
    random = random_for("order", chunk)
    letters = "abcdeZ"
    others = 0
    for _ in range(120):
        sizes = {letter: int(random.integers(1, 5)) for letter in letters}
        terms = [
            "".join(random.choice(list(letters), random.integers(0, 4), replace=bool(repeats)))
            for repeats in random.random(random.choice([1, 2, 2, 3])) < 0.2
        ]
        used = random.permutation(sorted(set("".join(terms))))
        subscripts = f"{','.join(terms)}->{''.join(x for x in used if random.random() < 0.7)}"
        arrays = []
        for term in terms:
            axes = random.permutation(len(term))
            host = np.ones([sizes[term[axis]] for axis in axes])
            array = host.transpose(np.argsort(axes)) if term else host
            arrays.append(array[::-1] if term and random.random() < 0.2 else array)
        expected = np.asarray(np.einsum(subscripts, *arrays))
        others += not expected.flags.c_contiguous
        for _ in range(2):  # the second call takes the short way
            got = np.asarray(einsum(subscripts, *arrays))
            assert strides_of_long_axes(got) == strides_of_long_axes(expected), subscripts
            np.testing.assert_array_equal(got, expected)
    assert others > 20


# Errors.

SQUARE = np.ones((3, 3))

ERRORS: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    (("ij",), {}, ValueError, "`operands` must have at least one array, got none"),
    (("ij", SQUARE, SQUARE), {}, ValueError, "`subscripts` must have one term for each operand"),
    (("ij,jk", SQUARE), {}, ValueError, "`subscripts` must have one term for each operand"),
    (("ijk", SQUARE), {}, ValueError, "`subscripts` must have a label for each axis of operand 0"),
    (("i", SQUARE), {}, ValueError, "`subscripts` must have a label for each axis of operand 0"),
    (("...ijk", SQUARE), {}, ValueError, "`subscripts` must have at most a label for each axis"),
    (("ij->iji", SQUARE), {}, ValueError, "`subscripts` must not repeat a label in the output"),
    (("ij->ik", SQUARE), {}, ValueError, "`subscripts` must have each label of the output in an"),
    (("ij-i", SQUARE), {}, ValueError, "`subscripts` must be made of letters"),
    (("ij>i", SQUARE), {}, ValueError, "`subscripts` must be made of letters"),
    (("ij->i->j", SQUARE), {}, ValueError, "`subscripts` must be made of letters"),
    (("ij->i,j", SQUARE), {}, ValueError, "`subscripts` must have one output after '->'"),
    (("i..j", SQUARE), {}, ValueError, "`subscripts` must have dots only as one '...' in a term"),
    (("i....j", SQUARE), {}, ValueError, "`subscripts` must have dots only as one '...'"),
    (("...i...", SQUARE), {}, ValueError, "`subscripts` must have dots only as one '...'"),
    (("ij->.", SQUARE), {}, ValueError, "`subscripts` must have dots only as one '...'"),
    (("i1", SQUARE), {}, ValueError, "`subscripts` must be made of letters"),
    (("i\nj", SQUARE), {}, ValueError, "`subscripts` must be made of letters"),
    (("ii", np.ones((3, 4))), {}, ValueError, "operand 0 must have one size for label 'i'"),
    (("ii->i", np.ones((1, 3))), {}, ValueError, "operand 0 must have one size for label 'i'"),
    (("ij,jk", SQUARE, np.ones((2, 3))), {}, ValueError, "operand 1 must have size 3 for label"),
    ((SQUARE,), {}, ValueError, "`subscripts` must be a string, or each operand must be followed"),
    ((SQUARE, 5), {}, TypeError, "each operand must be followed by the list of its labels, got 5"),
    ((SQUARE, "ij"), {}, TypeError, "each operand must be followed by the list of its labels"),
    ((SQUARE, [0, "a"]), {}, TypeError, "each list of labels must be made of integers and Ellip"),
    ((SQUARE, [0, 1.0]), {}, TypeError, "each list of labels must be made of integers and Ellip"),
    ((SQUARE, [..., 0, ...]), {}, ValueError, "each list of labels must have at most one Ellips"),
    ((SQUARE, [0, 1], 7), {}, TypeError, "the output must be a list of labels, got 7"),
    ((SQUARE, [0, 1], [2]), {}, ValueError, "`subscripts` must have each label of the output"),
    (("ij", SQUARE), {"order": "B"}, ValueError, "`order` must be 'C', 'F', 'A' or 'K', got 'B'"),
    (("ij", SQUARE), {"casting": "no!"}, ValueError, "`casting` must be one of no, equiv, safe"),
    (("ij->", SQUARE), {"dtype": "nope"}, TypeError, "`dtype` must be a dtype, got 'nope'"),
    (("ij->", SQUARE), {"optimize": "best"}, ValueError, "`optimize` must be True, False, one of"),
    (("ij->", SQUARE), {"memory_limit": 0}, ValueError, "`memory_limit` must be positive, got 0"),
    (("ij->", SQUARE), {"memory_limit": "1"}, TypeError, "`memory_limit` must be a number of"),
    (("ij->", SQUARE), {"out": [1]}, TypeError, "`out` must be a NumPy array, got list"),
    (("ij->i", SQUARE), {"out": np.ones(4)}, ValueError, "`out` must have shape (3,), got (4,)"),
    (("i->", np.array(["a"])), {}, TypeError, "operands must be numbers or booleans, got str32"),
    (("i,i", np.ones(1, "M8[s]"), [1]), {}, TypeError, "operands must"),
    (("ij", np.ma.ones((2, 2))), {}, TypeError, "operand 0 must be an array without a mask"),
]


@pytest.mark.parametrize(("arguments", "keywords", "error", "text"), ERRORS)
def test_errors(arguments: Any, keywords: Any, error: type[Exception], text: str) -> None:
    """Each names the function and what was expected; the fallback raises the same."""
    with pytest.raises(error, match="^" + re.escape("einsum: " + text)) as first:
        einsum(*arguments, **keywords)
    with fallback(), pytest.raises(error) as second:
        einsum(*arguments, **keywords)
    assert str(first.value) == str(second.value)


def test_out_must_be_writeable_and_free_of_overlap() -> None:
    locked = np.ones((3, 3))
    locked.flags.writeable = False
    with pytest.raises(ValueError, match=r"^einsum: `out` must be writeable"):
        einsum("ij,jk", SQUARE, SQUARE, out=locked)
    with pytest.raises(ValueError, match=r"^einsum: `out` must not overlap itself"):
        folded = np.lib.stride_tricks.as_strided(np.ones(9), (3, 3), (0, 8))
        einsum("ij,jk", SQUARE, SQUARE, out=folded)


def test_views_name_the_owner_of_their_memory() -> None:
    """As NumPy's do: `base` is the array that was given, or what that is a view of."""
    owner = np.arange(27.0)
    for a in (owner.reshape(3, 3, 3), np.ones((3, 3, 3)), owner.reshape(3, 3, 3)[::-1]):
        base = a if a.base is None else a.base
        for text in ("ijk->kij", "...ii->...i", "iij->ij", "iii->i", "..."):
            for _ in range(2):
                view = einsum(text, a)
                assert view.base is base, text
                assert view.flags.writeable
    a = np.ones((2, 2))
    a.flags.writeable = False
    assert not einsum("ii->i", a).flags.writeable


def test_no_arguments() -> None:
    for function in (einsum, einsum_path):
        with pytest.raises(ValueError, match="`subscripts` must be a string"):
            function()
        with pytest.raises(ValueError, match="`operands` must have at least one array"):
            function("")


def test_sizes_whose_product_overflows() -> None:
    """Broadcast operands whose outer product no memory holds; nothing is computed first."""
    huge = np.broadcast_to(np.float32(1), (2**31,))
    with pytest.raises(ValueError, match=r"^einsum: the result of shape .* is too large"):
        einsum("a,b,c->abc", huge, huge, huge)
    with pytest.raises(ValueError, match=r"^einsum: the result of shape .* is too large"):
        einsum("a,b,c->abc", huge, huge, huge, optimize="greedy")
    with pytest.raises(MemoryError):
        einsum("a,b->ab", huge, huge[: 2**28])


# Accuracy.

DISTRIBUTIONS = ("normal", "lognormal", "cauchy", "cancelling")


def draw(random: Any, distribution: str, shape: tuple[int, ...]) -> Any:
    if distribution == "lognormal":
        return random.lognormal(size=shape)
    if distribution == "cauchy":
        return np.clip(random.standard_cauchy(shape), -1e6, 1e6)
    values = random.standard_normal(shape)
    if distribution == "cancelling":  # neighbours along the summed axis nearly cancel
        values[..., 1::2] = -values[..., : values.shape[-1] // 2 * 2 : 2] * (1 + 1e-6)
    return values


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("name", ["float32", "float64", "complex64", "complex128"])
def test_error_bound(name: str, distribution: str, isa: str) -> None:
    """Long and short sums of every pattern, componentwise against the sum of magnitudes.

    On the fallback matrix products are those of NumPy's BLAS, some of which add a whole sum in
    one chain: twice as much is allowed there.
    """
    factor = 32.0 if isa == "numpy" else 16.0
    random = random_for("einsum error", name, distribution)
    for subscripts, shapes in (
        ("ij,kj->ik", ((5, 3000), (7, 3000))),
        ("ij,kj->ki", ((65, 400), (33, 400))),
        ("bij,bkj->bik", ((3, 17, 600), (3, 9, 600))),
        ("ij,j->i", ((9, 5000), (5000,))),
        ("i,ji->j", ((5000,), (9, 5000))),
        ("ij,ij->", ((30, 700), (30, 700))),
        ("ij,ij->i", ((30, 700), (30, 700))),
        ("ij->i", ((6, 20_000),)),
        ("ij->", ((60, 2000),)),
        ("ij,kj,j->ik", ((5, 900), (6, 900), (900,))),
    ):
        arrays = []
        for shape in shapes:
            values = draw(random, distribution, shape)
            if name.startswith("complex"):
                values = values + 1j * draw(random, distribution, shape)
            arrays.append(values.astype(name))
        assert_close(einsum(subscripts, *arrays), subscripts, arrays, factor)


def test_never_much_worse_than_numpy() -> None:
    """The largest error of each call beside NumPy's, in units of roundoff of the magnitudes.

    Up to half of the promised bound is fine, where NumPy may be lucky; beyond, ours is at most
    twice NumPy's.
    """
    random = random_for("beside numpy")
    for _ in range(2500):
        subscripts, arrays = random_call(random, ("float32", "float64"))
        got = np.asarray(einsum(subscripts, *arrays))
        if got.dtype.name not in ("float32", "float64") or not got.size:
            continue
        theirs = np.asarray(np.einsum(subscripts, *arrays))
        value, scale = exact(subscripts, arrays, got.dtype.name)
        unit = np.where(scale == 0, 1, scale * float(np.finfo(got.dtype).eps) / 2)
        ours = np.max(np.abs(got - value) / unit)
        assert ours <= max(8.0, 2 * np.max(np.abs(theirs - value) / unit)), subscripts


# What NumPy's documentation shows.


def test_examples_of_numpys_documentation() -> None:
    a = np.arange(25).reshape(5, 5)
    b = np.arange(5)
    c = np.arange(6).reshape(2, 3)
    assert einsum("ii", a) == einsum(a, [0, 0]) == 60
    np.testing.assert_array_equal(einsum("ii->i", a), [0, 6, 12, 18, 24])
    np.testing.assert_array_equal(einsum(a, [0, 0], [0]), [0, 6, 12, 18, 24])
    np.testing.assert_array_equal(einsum("ij->i", a), [10, 35, 60, 85, 110])
    np.testing.assert_array_equal(einsum(a, [0, 1], [0]), a.sum(axis=1))
    np.testing.assert_array_equal(einsum("...j->...", a), a.sum(axis=1))
    np.testing.assert_array_equal(einsum("ji", c), c.T)
    np.testing.assert_array_equal(einsum(c, [1, 0]), c.T)
    assert einsum("i,i", b, b) == einsum(b, [0], b, [0]) == 30
    np.testing.assert_array_equal(einsum("ij,j", a, b), [30, 80, 130, 180, 230])
    np.testing.assert_array_equal(einsum("...j,j", a, b), [30, 80, 130, 180, 230])
    np.testing.assert_array_equal(einsum("..., ...", 3, c), 3 * c)
    np.testing.assert_array_equal(einsum(",ij", 3, c), 3 * c)
    np.testing.assert_array_equal(einsum(3, [Ellipsis], c, [Ellipsis]), 3 * c)
    np.testing.assert_array_equal(einsum("i,j", np.arange(2) + 1, b), np.outer([1, 2], b))
    x, y = np.arange(60.0).reshape(3, 4, 5), np.arange(24.0).reshape(4, 3, 2)
    expected = np.tensordot(x, y, axes=([1, 0], [0, 1]))
    np.testing.assert_array_equal(einsum("ijk,jil->kl", x, y), expected)
    np.testing.assert_array_equal(einsum(x, [0, 1, 2], y, [1, 0, 3], [2, 3]), expected)
    a = np.zeros((3, 3))
    einsum("ii->i", a)[:] = 1
    np.testing.assert_array_equal(a, np.eye(3))
    p, q = np.arange(6).reshape(3, 2), np.arange(12).reshape(4, 3)
    for subscripts in ("ki,jk->ij", "ki,...k->i...", "k...,jk"):
        np.testing.assert_array_equal(einsum(subscripts, p, q), (q @ p).T)


def test_scalars_and_empty_arrays() -> None:
    assert einsum("", 3.0) == 3.0 and isinstance(einsum("", 3.0), np.float64)
    assert einsum(",", 3.0, 2.0) == 6.0
    assert einsum("->", 3) == 3
    assert einsum(3.0, []) == 3.0
    assert einsum("ij->", np.ones((3, 0))) == 0.0
    np.testing.assert_array_equal(einsum("ij,jk", np.ones((2, 0)), np.ones((0, 3))), 0.0)
    assert einsum("ij,jk", np.ones((0, 2)), np.ones((2, 3))).shape == (0, 3)
    assert einsum(b"ij,jk", np.ones((2, 2)), np.ones((2, 3))).shape == (2, 3)
    assert einsum(np.str_("ij,jk"), np.ones((2, 2)), np.ones((2, 3))).shape == (2, 3)
    assert einsum("i,i", [1, 2], [3, 4]) == 11
    matrix = SQUARE.view(np.recarray)
    assert type(einsum("ij,jk->ik", matrix, SQUARE)) is np.ndarray
