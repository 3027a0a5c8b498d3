"""The command line: ``python -m unitstride info | selftest | bench``."""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import unitstride

# OpenBLAS workers spin for tens of milliseconds after a call and steal a core from the next
# contender. 4 is the shortest time, 2^4 cycles; it is read when NumPy is imported.
_SPIN = ("OPENBLAS_THREAD_TIMEOUT", "4")

# What is measured, and the module that does it.
_BENCHES = {
    "softmax": "_bench",
    "einsum": "_bench_einsum",
    "optim": "_bench_optim",
    "attention": "_bench_attention",
    "convolution": "_bench_convolution",
}


def _finite(value: Any) -> Any:
    """Replace what JSON cannot say, infinity and NaN, by None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_json(report: Any) -> None:
    print(json.dumps(_finite(report), indent=2, allow_nan=False))


def _info(options: argparse.Namespace) -> int:
    if options.json:
        facts = {
            "config": unitstride.show_config("dicts"),
            "runtime": unitstride.show_runtime("dicts"),
        }
        _print_json(facts)
    else:
        unitstride.show_config()
        unitstride.show_runtime()
    return 0


def _selftest(options: argparse.Namespace) -> int:
    from unitstride import _selftest

    report = _selftest.run()
    if options.json:
        _print_json(report)
    else:
        _selftest.show(report)
    return 1 if report["failures"] else 0


def _bench(options: argparse.Namespace) -> int:
    bench: Any = import_module(f"unitstride.{_BENCHES[options.operation]}")
    cases = [
        case
        for case in bench.cases(options.quick)
        if options.only in case.title or options.only == case.group
    ]
    if not cases:
        print(f"unitstride bench: no case contains {options.only!r}", file=sys.stderr)
        return 2
    rounds = options.rounds or (3 if options.quick else getattr(bench, "ROUNDS", 9))
    peers = bench.QUICK_PEERS if options.quick else bench.PEERS
    report = bench.run(cases, rounds, peers, show=not options.json)
    if options.json:
        _print_json(report)
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m unitstride")
    parser.description = "Show, check and measure the installed library."
    parser.add_argument("--version", action="version", version=unitstride.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    info = commands.add_parser("info", help="what was built and what runs here")
    selftest = commands.add_parser("selftest", help="check every kernel on this CPU")
    bench = commands.add_parser("bench", help="measure parity and speed beside other libraries")
    bench.add_argument("operation", nargs="?", choices=list(_BENCHES), default="softmax")
    bench.add_argument("--quick", action="store_true", help="small arrays, NumPy and SciPy only")
    bench.add_argument(
        "--only",
        metavar="TEXT",
        default="",
        help="the cases with TEXT in the name, or the group TEXT",
    )
    bench.add_argument(
        "--rounds", type=_positive, help="measured rounds (9; 3 with --quick and of einsum)"
    )
    for command, run in ((info, _info), (selftest, _selftest), (bench, _bench)):
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(run=run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 success, 1 a check failed, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    if options.command == "bench" and arguments is None and _SPIN[0] not in os.environ:
        sys.stdout.flush()
        os.execve(sys.executable, sys.orig_argv, {**os.environ, _SPIN[0]: _SPIN[1]})
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` perhaps, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
