"""The benchmark's results as aligned tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unitstride._bench import Result

_OWN = "unitstride"


def format_time(seconds: float) -> str:
    """Return a time with its unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1.0:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def show_head(runtime: dict[str, Any], versions: dict[str, str], rounds: int) -> None:
    """Print what is measured where."""
    level = runtime["isa"]["in_use"] or "NumPy backend"
    threads = runtime["threads"]["number"]
    print(f"unitstride {runtime['unitstride']}, {level}, threads: {threads}, {rounds} rounds")
    print("peers: " + ", ".join(f"{name} {version}" for name, version in versions.items()))


def show_parity(title: str, errors: dict[str, float]) -> None:
    """Print the errors of all libraries."""
    text = ", ".join(f"{name} {error:.3g}" for name, error in errors.items())
    print(f"\nlargest error against float64, in ULP, {title}: {text}")


def _ratio(times: dict[str, dict[str, float]], name: str, kind: str) -> str:
    """Return how many times our time a peer takes; it may have no call with ``out=``."""
    theirs = times.get(name, {})
    if kind in theirs:
        return f"{theirs[kind] / times[_OWN][kind]:.2f}x"
    return f"{theirs['fresh'] / times[_OWN][kind]:.2f}x*" if theirs else "-"


def _rows(results: Sequence["Result"], peers: Sequence[str]) -> list[list[str]]:
    rows = []
    for result in results:
        case, times = result.case, result.times
        name = f"{case.function} {case.dtype} {case.shape}"
        if not times:
            rows.append([name, "", "not run: ml_dtypes is not installed"])
        for kind, seconds in times.get(_OWN, {}).items():
            row = [f"{name} {case.layout}", kind, format_time(seconds)]
            row += [_ratio(times, peer, kind) for peer in peers]
            row.append("-" if result.limit is None else f"{100 * result.limit / seconds:.0f} %")
            plain = times.get("contiguous", {}).get(kind)
            row.append("-" if plain is None else f"{seconds / plain:.2f}x")
            rows.append(row)
    return rows


def show_group(group: str, results: Sequence["Result"], peers: Sequence[str]) -> None:
    """Print one table."""
    head = [group, "output", "time", *peers, "of limit", "/ contiguous"]
    rows = [head, *_rows(results, peers)]
    full = [row for row in rows if len(row) == len(head)]
    widths = [max(len(row[column]) for row in full) for column in range(len(head))]
    print()
    for row in rows:
        left = f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}"
        cells = zip(row[2:], widths[2:], strict=False)
        print(left + "".join(f"  {text:>{width}}" for text, width in cells))


def show_foot(seconds: float, results: Sequence["Result"]) -> None:
    """Print what the columns mean."""
    print(f"\nMedians, {seconds:.0f} s in all. Peers: their time / ours (* they have no out=).")
    if any(result.limit is not None for result in results):
        print("Limit: least memory traffic over the bandwidth measured in the same rounds.")
    print("/ contiguous: our time over that of the contiguous case, measured in the same rounds.")
