#!/usr/bin/env python3
"""What requests share: bytes read per token and tokens a second in all, against how many are answered at once.

    PENSTOCK_BINARY=build/release/penstock bench/server_sharing.py MODEL [--memory BYTES | --slots N] [--tokens 200] [--rounds 3] [--requests 1,2,4,8]

Each number of requests has its own server, with so many sequences. Rounds go through all numbers and come again, so that what
else the machine does meets all alike; the table has medians, with the smallest and largest tok/s. --slots is how many experts
memory holds (128 of the demo model's 512 are a quarter); the budget follows. Where the time goes is told as the share of the
pass that waits for the disk, from /metrics.
"""

import argparse
import concurrent.futures
import os
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
os.environ.setdefault("PENSTOCK_DEMO_MODEL", "")
sys.path.insert(0, os.path.join(HERE, "..", "tests", "server"))
from support import Server, chat  # noqa: E402

NAMES = ("expert_bytes_read_total", "generated_tokens_total", "expert_wait_seconds_total", "generation_seconds_total", "expert_cache_hits_total", "expert_cache_misses_total")


class Sharing:
    def __init__(self, options, requests):
        self.options, self.requests = options, requests
        flags = ("--slots", options.slots) if options.slots else ()
        self.server = Server("--parallel", requests, "--max-queue", 16, *flags, model=options.model, memory=options.memory, context=512)
        self.rows = []

    def round(self, number):
        body = lambda i: chat(f"Tell me story number {100 * number + i}.", ignore_eos=True, max_tokens=self.options.tokens, cache_prompt=False)
        if number == 0:
            self.server.post("/v1/chat/completions", body(99), timeout=3600)  # what any answer needs is there
        before = {name: self.server.metric(name) for name in NAMES}
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(self.requests) as pool:
            for status, _, answer in pool.map(lambda i: self.server.post("/v1/chat/completions", body(i), timeout=3600), range(self.requests)):
                assert status == 200, answer
        seconds = time.monotonic() - start
        self.server.wait_until_idle(60)
        used = {name: self.server.metric(name) - before[name] for name in NAMES}
        tokens = used["generated_tokens_total"]
        self.rows.append((used["expert_bytes_read_total"] / tokens, tokens / seconds, used["expert_wait_seconds_total"] / seconds,
                          used["expert_cache_hits_total"] / max(used["expert_cache_hits_total"] + used["expert_cache_misses_total"], 1)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--memory", default="400M")
    parser.add_argument("--slots", type=int)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 4, 8])
    options = parser.parse_args()
    table = []
    try:
        for requests in options.requests:
            table.append(Sharing(options, requests))
        for number in range(options.rounds):
            for one in table:
                one.round(number)
    finally:
        for one in table:
            one.server.stop()
    first = None
    print("| at once | KiB read per token | of one's | tok/s in all (smallest, largest) | of one's | hits | waiting for the disk |\n|---:|---:|---:|---:|---:|---:|---:|")
    for one in table:
        read, speed, waits, hits = (statistics.median(column) for column in zip(*one.rows))
        first = first or (read, speed)
        speeds = [row[1] for row in one.rows]
        print(f"| {one.requests} | {read / 1024:,.0f} | {read / first[0] if first[0] else 0:.2f} | {speed:.1f} ({min(speeds):.1f}, {max(speeds):.1f}) "
              f"| {speed / first[1]:.2f} | {100 * hits:.1f} % | {100 * waits:.0f} % |")


if __name__ == "__main__":
    main()
