"""The contractions that are measured, by groups.

TCCG is the benchmark of P. Springer and P. Bientinesi, "Design of a high-performance GEMM-like
tensor-tensor multiplication", ACM TOMS 44(3), 2018, doi:10.1145/3157733: 48 contractions from
chemistry, sorted from memory-bound to compute-bound. Its arrays are column-major; here each term
is reversed and the arrays are row-major.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Shape = tuple[int, ...]

# a, b -> c, in column-major order; in the first eight the free label of b has size 24.
_TCCG = """
bda,dc->abc dca,bd->abc dbea,ec->abcd deca,be->abcd ebad,ce->abcd efbad,cf->abcde ecbfa,fd->abcde
efcad,bf->abcde ea,ebcd->abcd eb,aecd->abcd ec,abed->abcd ac,cb->ab acd,dbc->ab cad,dcb->ab
acd,db->abc ad,bdc->abc adc,bd->abc adc,db->abc adec,ebd->abc aebf,dfce->abcd aebf,fdec->abcd
aecf,bfde->abcd aecf,fbed->abcd aedf,bfce->abcd aedf,fbec->abcd aefb,fdce->abcd aefc,fbed->abcd
eafb,fdec->abcd eafc,bfde->abcd eafd,fbec->abcd dega,gfbc->abcdef degb,gfac->abcdef
degc,gfab->abcdef dfga,gebc->abcdef dfgb,geac->abcdef dfgc,geab->abcdef efga,gdbc->abcdef
efgb,gdac->abcdef efgc,gdab->abcdef gdab,efgc->abcdef gdac,efgb->abcdef gdbc,efga->abcdef
geab,dfgc->abcdef geac,dfgb->abcdef gebc,dfga->abcdef gfab,degc->abcdef gfac,degb->abcdef
gfbc,dega->abcdef
"""
_TIMES_MATRIX = 8


@dataclass(frozen=True)
class Contraction:
    """One problem: subscripts, and arrays of given shapes, dtype and layout."""

    group: str
    subscripts: str
    shapes: tuple[Shape, ...]
    dtype: str = "float32"
    # For each operand: "C", "F", or "step 2" for every second element of the last axis.
    layouts: tuple[str, ...] = ()
    order: str = "C"  # of the output
    note: str = field(default="", compare=False)

    @property
    def title(self) -> str:
        """The name by which ``--only`` finds the case."""
        shapes = " ".join("x".join(map(str, shape)) or "1" for shape in self.shapes)
        if len(self.shapes) > 4:
            shapes = f"{len(self.shapes)} arrays"
        places = "" if not self.layouts else f" [{','.join(self.layouts)}->{self.order}]"
        name = self.note or self.subscripts
        return f"{name} {shapes} {self.dtype}{places}"

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each label."""
        terms = self.subscripts.split("->")[0].split(",")
        return {
            x: n
            for term, shape in zip(terms, self.shapes, strict=True)
            for x, n in zip(term, shape, strict=True)
        }

    @property
    def operations(self) -> float:
        """Real multiplications and additions of two operands that are multiplied and summed."""
        inputs, output = self.subscripts.split("->")
        if len(self.shapes) != 2 or not set(inputs) - {","} - set(output):
            return 0.0
        kind = 8.0 if self.dtype.startswith("complex") else 2.0
        return kind * math.prod(self.sizes.values())

    @property
    def bytes_read(self) -> float:
        """The bytes of all operands."""
        itemsize = 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize
        return float(itemsize) * sum(map(math.prod, self.shapes))

    @property
    def bytes_written(self) -> float:
        """The bytes of the result."""
        itemsize = 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize
        return float(itemsize) * math.prod(self.sizes[x] for x in self.subscripts.split("->")[1])


def _square(subscripts: str, size: int, dtype: str, group: str, **more: object) -> Contraction:
    terms = subscripts.split("->")[0].split(",")
    shapes = tuple((size,) * len(term) for term in terms)
    return Contraction(group, subscripts, shapes, dtype, **more)  # type: ignore[arg-type]


def tccg(dtype: str, bytes_per_array: int = 8 << 20) -> list[Contraction]:
    """Return the 48 contractions with the largest array of about `bytes_per_array`."""
    found = []
    elements = bytes_per_array / np.dtype(dtype).itemsize
    for number, text in enumerate(_TCCG.split()):
        inputs, output = text.split("->")
        a, b = inputs.split(",")
        extent = elements ** (1 / max(len(a), len(b), len(output)))
        first = {a[0], b[0], output[0]}
        sizes = {
            x: -(-extent // 24) * 24 if x in first else max(round(extent / 4), 1) * 4
            for x in {*a, *b}
        }
        if number < _TIMES_MATRIX:
            (free,) = set(b) - set(a)
            sizes[free] = 24
        terms = a[::-1], b[::-1]
        shapes = tuple(tuple(int(sizes[x]) for x in term) for term in terms)
        subscripts = f"{terms[0]},{terms[1]}->{output[::-1]}"
        found.append(Contraction(f"TCCG {dtype}", subscripts, shapes, dtype))
    return found


def _network(name: str, subscripts: str, sizes: dict[str, int] | int) -> Contraction:
    terms = subscripts.split("->")[0].split(",")
    shapes = tuple(
        tuple(sizes if isinstance(sizes, int) else sizes[x] for x in term) for term in terms
    )
    return Contraction("networks", subscripts, shapes, "float64", note=name)


def random_network(count: int, seed: int) -> Contraction:
    """Return a connected network of `count` arrays of about three labels each."""
    random = np.random.default_rng(seed)
    letters = iter("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    terms: list[list[str]] = [[] for _ in range(count)]
    sizes: dict[str, int] = {}
    output = []
    pairs: list[list[int]] = [[k, int(random.integers(k))] for k in range(1, count)]
    pairs += [list(random.choice(count, 2, replace=False)) for _ in range(count // 2)]
    for pair in pairs:
        letter = next(letters)
        sizes[letter] = int(random.integers(3, 9))
        for member in pair:
            terms[int(member)].append(letter)
    for member in random.choice(count, 2, replace=False):
        output.append(next(letters))
        sizes[output[-1]] = int(random.integers(3, 9))
        terms[int(member)].append(output[-1])
    text = ",".join(map("".join, terms)) + "->" + "".join(output)
    return _network(f"random network {seed}", text, sizes)


def _networks() -> list[Contraction]:
    chain = "pqrstuvw"
    bonds = "abcdefg"
    sites = [
        f"{left}{x}{right}" for left, x, right in zip("-" + bonds, chain, bonds + "-", strict=True)
    ]
    upper = [site.replace("-", "") for site in sites]
    lower = [site.translate(str.maketrans(bonds, bonds.upper())) for site in upper]
    state = {**dict.fromkeys(chain, 2), **dict.fromkeys(bonds + bonds.upper(), 64)}
    return [
        *(random_network(int(count), seed) for seed, count in enumerate(np.linspace(8, 30, 10))),
        _network("four index transform", "pi,qj,ijkl,rk,sl->pqrs", 24),
        _network("matrix product state, 8 sites", ",".join(upper + lower) + "->", state),
        _network("CP", "ir,jr,kr,r->ijk", {"i": 128, "j": 128, "k": 128, "r": 64}),
        _network(
            "Tucker",
            "abc,ia,jb,kc->ijk",
            {**dict.fromkeys("abc", 32), **dict.fromkeys("ijk", 160)},
        ),
    ]


def _layouts(size: int) -> list[Contraction]:
    group = "operands and output in both orders, every second column"
    product = "ij,jk->ik"
    places = [((a, b), c) for a in "CF" for b in "CF" for c in "CF"]
    places += [(("step 2", "C"), "C"), (("C", "step 2"), "C"), (("step 2", "step 2"), "C")]
    return [_square(product, size, "float32", group, layouts=x, order=y) for x, y in places]


def contractions(quick: bool = False) -> Sequence[Contraction]:
    """Return all cases; small ones for a quick look."""
    n = 256 if quick else 1024
    product = "ij,jk->ik"
    stack = "bij,bjk->bik"
    streams = 512 if quick else 4096
    cases = [
        _square(product, size, dtype, "matrix products")
        for dtype in ("float32", "float64")
        for size in (n, 2 * n)
    ]
    cases += _layouts(n)
    for count, size in ((256, 64), (4096, 16), (64, 128)):
        matrices = (count, size, size)
        cases.append(Contraction("stacks of products", stack, (matrices, matrices)))
    cases += [_square(product, size, "float32", "small calls") for size in (4, 16, 64)]
    for text in ("ij,ij->", "ij,j->i", "ij,i->j", "i,j->ij", "ij,ij->ij"):
        cases.append(_square(text, streams, "float32", "bound by memory"))
    for name in ("bhqd,bkhd->bhqk", "bhqk,bkhd->bqhd"):
        sizes = {"b": 2, "h": 12, "q": 256, "k": 256, "d": 64}
        shapes = tuple(tuple(sizes[x] for x in term) for term in name.split("->")[0].split(","))
        cases.append(Contraction("attention", name, shapes))
    cases += [_square(product, n, name, "complex") for name in ("complex64", "complex128")]
    cases.append(_square(product, n, "bfloat16", "bfloat16"))
    cases += _networks()
    if not quick:
        cases += tccg("float32") + tccg("float64")
    return cases
