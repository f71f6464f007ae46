"""All benchmarks, one after the other: `python -m bench.run [--quick]`. Each can be run alone.

With --quick every part shows that it works, in about half an hour, and its figures mean little.
"""

from __future__ import annotations

import subprocess
import sys
import time

PARTS = (
    "prepare",
    "prove",
    "engine",
    "overload",
    "embedding",
    "forecast",
    "reload",
    "recommend",
    "recommend_scale",
    "style",
    "llm",
    "llm_cancel",
    "llm_agreement",
)
TAKES_QUICK = set(PARTS) - {"prepare", "prove"}


def main() -> None:
    """Run them all, whatever fails on the way; the exit status is that of the last that failed."""
    failed = 0
    quick = ["--quick"] if "--quick" in sys.argv[1:] else []
    for part in PARTS:
        began = time.monotonic()
        print(f"== bench.{part}", flush=True)
        options = quick if part in TAKES_QUICK else []
        done = subprocess.run([sys.executable, "-m", f"bench.{part}", *options])
        print(f"== bench.{part}: {time.monotonic() - began:.0f} s, exit {done.returncode}", flush=True)
        failed = done.returncode or failed
    sys.exit(failed)


if __name__ == "__main__":
    main()
