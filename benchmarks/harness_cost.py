"""What the harness adds to a control step, for small and for large observations.

    python benchmarks/harness_cost.py

Runs `vla-bench floor` under the smallest and the largest protocol of LIBERO: recorded observations are replayed to a
policy that answers at once, through the harness (rollout, timers, records, journal synchronised to disk) and through a
plain loop. Printed is processor time, which other programs on the machine do not change much.
"""

import sys

from vla_bench.floor import Floor

PROTOCOLS = ("reference-fast", "openvla-oft-fast")
"""Two cameras at 128 px and at 256 px."""


def main() -> int:
    """Print both measurements; 1 if one is above the limit."""
    failed = 0
    for protocol in PROTOCOLS:
        print(f"protocol {protocol}")
        failed |= Floor(protocol=protocol).run()
    return failed


if __name__ == "__main__":
    sys.exit(main())
