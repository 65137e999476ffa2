"""Measure how fast featcache answers when it has nothing to compute.

    python scripts/bench/startup.py

The median wall time of ``--help``, ``--version`` and one completion, each a process of
its own, beside ``python -c pass``; the goal is under 0.3 s.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

GOAL = 0.3  # seconds

COMPLETION = {
    "_FEATCACHE_COMPLETE": "bash_complete",
    "COMP_WORDS": "featcache extract --backbone res",
    "COMP_CWORD": "3",
}


def main() -> None:
    """Print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    command = featcache_command()
    cases = {
        "python -c pass": ([sys.executable, "-c", "pass"], {}),
        "featcache --help": ([*command, "--help"], {}),
        "featcache --version": ([*command, "--version"], {}),
        "completion": (command, COMPLETION),
    }
    result = {}
    for name, (arguments, environment) in cases.items():
        seconds = [timed(arguments, environment) for _ in range(runs)]
        result[name] = round(statistics.median(seconds), 4)
        late = "  over the goal" if result[name] > GOAL else ""
        print(f"{name:<20}{result[name]:>8.3f} s  (slowest {max(seconds):.3f}){late}")
    print(json.dumps({"runs": runs, "goal_seconds": GOAL, "median_seconds": result}))


def featcache_command() -> list[str]:
    """Return the installed command, or what it does."""
    installed = Path(sys.executable).with_name("featcache")
    if installed.exists():
        return [str(installed)]
    code = "from featcache.cli.main import main; main(prog_name='featcache')"
    return [sys.executable, "-c", code]


def timed(arguments: list[str], environment: dict[str, str]) -> float:
    """Return the seconds from start to exit of one process."""
    began = time.perf_counter()
    subprocess.run(
        arguments,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
