"""Probes what one durable write costs on a disk: appends 4 KiB and calls fdatasync, again and again.

Usage: flush.py DIRECTORY [SECONDS]

Prints one JSON line. The disk is probed in every run because some have moods."""

import json
import os
import sys
import tempfile
import time

PROBE_BYTES = 4096
SECONDS = 2.0
# A preallocated file is what the ledger writes to: its size does not change with every append.
FILE_BYTES = 64 << 20


def main():
    directory = sys.argv[1]
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else SECONDS
    data = os.urandom(PROBE_BYTES)
    took = []
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        os.posix_fallocate(file.fileno(), 0, FILE_BYTES)
        os.fsync(file.fileno())
        end = time.perf_counter() + seconds
        offset = 0
        while time.perf_counter() < end:
            began = time.perf_counter()
            os.pwrite(file.fileno(), data, offset)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
            offset = (offset + PROBE_BYTES) % FILE_BYTES
    took.sort()
    at = lambda share: round(took[int((len(took) - 1) * share)] * 1e6, 1)
    print(json.dumps({
        "event": "flush",
        "bytes": PROBE_BYTES,
        "flushes": len(took),
        "flush_us": {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0)},
    }))


if __name__ == "__main__":
    main()
