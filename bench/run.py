#!/usr/bin/env python3
"""Measures Daybook against the machine and against others, in one run, and prints the ratios.

Every ratio's two sides are measured in this run, one right after the other, because a shared machine's speed
drifts. Needs only Python's standard library; the peers bring their own scripts beside this file.

    bench/run.py            everything (about half an hour)
    bench/run.py --quick    small corpora, no 5-million run (a few minutes)
    bench/run.py batch post only these measurements
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
LOAD = TARGET / "bench-load" / "release" / "daybook-load"
NODE = TARGET / "release" / "daybook"
BASELINE = TARGET / "bench-baseline" / "release" / "daybook-baseline"

results = {}
table = []


def say(text):
    print(text, file=sys.stderr, flush=True)


def build():
    say("building")
    for manifest, target in (
        (ROOT / "Cargo.toml", TARGET),
        (HERE / "load" / "Cargo.toml", TARGET / "bench-load"),
        (HERE / "baseline" / "Cargo.toml", TARGET / "bench-baseline"),
    ):
        subprocess.run(
            ["cargo", "build", "--release", "--quiet", "--manifest-path", manifest],
            check=True,
            cwd=ROOT,
            env={**os.environ, "CARGO_TARGET_DIR": str(target)},
        )


def run(*command):
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def load(*arguments):
    return run(LOAD, *arguments)


class Node:
    """A node of its own, with data in a folder of its own."""

    def __init__(self, folder, *arguments):
        self.folder = folder
        self.begun = time.monotonic()
        self.log = open(folder / "node.log", "ab")
        self.process = subprocess.Popen(
            [NODE, "start", "--data-dir", folder / "data", "--listen", "127.0.0.1:0",
             "--streams-listen", "127.0.0.1:0", "--json", *arguments],
            stdout=subprocess.PIPE, stderr=self.log, text=True,
        )
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the node did not start; see {folder / 'node.log'}")
        self.ready_seconds = time.monotonic() - self.begun
        listening = json.loads(line)
        self.url = listening["http"]
        self.address = listening["http"].removeprefix("http://")
        self.streams = listening["streams"].removeprefix("ws://")

    def memory(self):
        """Bytes of memory in use: all of it, and without what the kernel can drop (mapped files)."""
        fields = {}
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("VmRSS", "RssAnon"):
                fields[name] = int(value.split()[0]) * 1024
        return fields["VmRSS"], fields["RssAnon"]

    def get(self, path):
        with urllib.request.urlopen(self.url + path) as answer:
            return json.loads(answer.read())

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(timeout=120)
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()


def disk_bytes(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def median(measure, rounds, field):
    samples = [measure(round_) for round_ in range(rounds)]
    samples.sort(key=lambda sample: sample[field])
    return samples[len(samples) // 2]


def ratio(name, goal, better, value, how):
    met = value >= goal if better == "≥" else value <= goal
    table.append((name, f"{better} {goal}", f"{value:.2f}", "yes" if met else "NO", how))
    say(f"{'ok  ' if met else 'MISS'} {name}: {value:.2f} (goal {better} {goal}; {how})")


@contextlib.contextmanager
def scratch():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=TARGET))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def corpus(folder, **shape):
    arguments = [argument for name, value in shape.items()
                 for argument in (f"--{name.replace('_', '-')}", value)]
    return load("corpus", "--out", folder, *arguments)


def batch(options):
    """Durable TRANSFERs through the batch door ÷ twice the validation-only rate of one core."""
    count = 40_000 if options.quick else 200_000
    pairs = []
    for seed in range(3):
        with scratch() as folder:
            corpus(folder, transactions=count, keys=200, rounds=1, seed=seed + 1)
            validation = load("validate", folder / "transfer-1.ndjson")
            with Node(folder) as node:
                created = load("upload", "--node", node.address, folder / "create.ndjson")
                moved = load("upload", "--node", node.address, folder / "transfer-1.ndjson")
                assert created["committed"] == moved["committed"] == count, (created, moved)
        pairs.append((moved["per_second"] / (2 * validation["per_second_per_core"]), validation, moved))
    pairs.sort(key=lambda pair: pair[0])
    value, validation, moved = pairs[1]
    results["batch"] = {"validation": validation, "upload": moved}
    ratio("durable TRANSFERs/s, batch door ÷ 2 × validation of one core", 0.6, "≥", value,
          f"{moved['per_second']:,.0f}/s ÷ 2 × {validation['per_second_per_core']:,.0f}/s")


def baseline(options):
    """The node ÷ the same logic on stock crates over an LSM store."""
    count = 40_000 if options.quick else 100_000
    pairs = []
    for seed in range(3):
        with scratch() as folder:
            corpus(folder, transactions=count, keys=200, rounds=1, seed=seed + 11)
            stock = run(BASELINE, folder / "create.ndjson", folder / "transfer-1.ndjson",
                        "--data-dir", folder / "stock")
            with Node(folder) as node:
                created = load("upload", "--node", node.address, folder / "create.ndjson")
                moved = load("upload", "--node", node.address, folder / "transfer-1.ndjson")
        rate = 2 * count / (created["seconds"] + moved["seconds"])
        pairs.append((rate / stock["per_second"], rate, stock))
    pairs.sort(key=lambda pair: pair[0])
    value, rate, stock = pairs[1]
    results["baseline"] = {"stock": stock, "node_per_second": rate}
    ratio("node ÷ stock crates over fjall", 3, "≥", value, f"{rate:,.0f}/s ÷ {stock['per_second']:,.0f}/s")


def python(options):
    """Validation per core ÷ BigchainDB's and Planetmint's own."""
    with scratch() as folder:
        corpus(folder, transactions=20_000, keys=200, rounds=1)
        validation = load("validate", folder / "transfer-1.ndjson")
    peers = run(HERE / "python" / "validate.sh")
    results["python"] = {"validation": validation, "peers": peers}
    for peer, rate in peers["transfer_per_second"].items():
        ratio(f"validation of TRANSFERs per core ÷ {peer}", 60, "≥",
              validation["per_second_per_core"] / rate,
              f"{validation['per_second_per_core']:,.0f}/s ÷ {rate:,.0f}/s")


def post(options):
    """50 clients, one TRANSFER per POST answered after the commit ÷ PostgreSQL."""
    count = 20_000 if options.quick else 60_000
    postgres = run(HERE / "postgres.sh")

    def measure(seed):
        with scratch() as folder:
            corpus(folder, transactions=count, keys=200, rounds=1, seed=seed + 21)
            with Node(folder) as node:
                load("upload", "--node", node.address, folder / "create.ndjson")
                posted = load("post", "--node", node.address, folder / "transfer-1.ndjson")
                assert posted["accepted"] == count, posted
                return posted

    posted = median(measure, 3, "per_second")
    results["post"] = {"postgres": postgres, "post": posted}
    ratio("50 clients, one POST per TRANSFER ÷ PostgreSQL stored function", 2, "≥",
          posted["per_second"] / postgres["per_second"],
          f"{posted['per_second']:,.0f}/s ÷ {postgres['per_second']:,.0f}/s")


def idle(options):
    """One client, submit to durable answer ÷ the disk's flush."""
    count = 1_500
    pairs = []
    for seed in range(5):
        with scratch() as folder:
            corpus(folder, transactions=count, keys=200, rounds=1, seed=seed + 31)
            before = load("disk", folder)
            with Node(folder) as node:
                load("upload", "--node", node.address, folder / "create.ndjson")
                posted = load("post", "--node", node.address, folder / "transfer-1.ndjson", "--connections", 1)
            after = load("disk", folder)
            probe = {name: statistics.mean((before[name], after[name])) for name in ("p50_us", "p99_us")}
        pairs.append((posted["p50_us"] / probe["p50_us"], posted["p99_us"] / probe["p99_us"], posted, probe))
    results["idle"] = [{"post": pair[2], "probe": pair[3]} for pair in pairs]
    for place, name, goal in ((0, "p50", 3), (1, "p99", 4)):
        pairs.sort(key=lambda pair: pair[place])
        middle = pairs[len(pairs) // 2]
        ratio(f"idle submit → durable, {name} ÷ 4 KiB append + fdatasync {name}", goal, "≤", middle[place],
              f"{middle[2][name + '_us']:,.0f} µs ÷ {middle[3][name + '_us']:,.0f} µs")


def subscribers(options):
    """1,000 subscribers ÷ plain writes of the same bytes, as many frames per write."""
    count, readers = (4_000, 200) if options.quick else (20_000, 1_000)

    def stream(stuck, seed):
        with scratch() as folder:
            corpus(folder, transactions=count, keys=200, rounds=0, seed=seed)
            with Node(folder) as node:
                reader = subprocess.Popen(
                    [LOAD, "subscribe", "--node", node.streams, "--subscribers", str(readers),
                     "--stuck", str(stuck), "--frames", str(count)],
                    stdout=subprocess.PIPE, text=True)
                reader.stdout.readline()
                load("upload", "--node", node.address, folder / "create.ndjson")
                measured = json.loads(reader.stdout.readline())
                reader.wait()
                return measured

    pairs = []
    for seed in range(3):
        live = stream(0, 41 + seed)
        raw = load("fan", "--subscribers", readers, "--frames", count,
                   "--frame-bytes", round(live["bytes_per_delivery"]),
                   "--frames-per-write", max(1, round(live["deliveries_per_read"])))
        pairs.append((live["deliveries_per_second"] / raw["deliveries_per_second"], live, raw))
    pairs.sort(key=lambda pair: pair[0])
    value, live, raw = pairs[1]
    results["subscribers"] = {"live": live, "raw": raw}
    ratio(f"{readers:,} subscribers: deliveries/s ÷ plain writes", 0.5, "≥", value,
          f"{live['deliveries_per_second']:,.0f}/s ÷ {raw['deliveries_per_second']:,.0f}/s")
    moved = []
    for seed in range(3):
        without, with_ = stream(0, 51 + seed), stream(1, 61 + seed)
        moved.append(with_["done_p99_us"] / without["done_p99_us"])
    results["stuck"] = moved
    ratio("others' p99 with one stuck subscriber ÷ without", 1.05, "≤", sorted(moved)[1],
          "time until the 99th percentile of subscribers has every frame")


def spoiled(options):
    """Rate with 1 % invalid signatures ÷ clean rate."""
    count = 40_000 if options.quick else 100_000
    pairs = []
    for seed in range(3):
        rates = []
        for spoil in (100, 0):
            with scratch() as folder:
                corpus(folder, transactions=count, keys=200, rounds=1, spoil_every=spoil, seed=seed + 71)
                with Node(folder) as node:
                    load("upload", "--node", node.address, folder / "create.ndjson")
                    moved = load("upload", "--node", node.address, folder / "transfer-1.ndjson")
                    assert moved["rejected"] == (count // spoil if spoil else 0), moved
                    rates.append(moved["per_second"])
        pairs.append((rates[0] / rates[1], rates))
    pairs.sort()
    results["spoiled"] = pairs
    ratio("rate with 1 % invalid signatures ÷ clean rate", 0.3, "≥", pairs[1][0],
          f"{pairs[1][1][0]:,.0f}/s ÷ {pairs[1][1][1]:,.0f}/s")


def long(options):
    """Millions of transactions: cost, disk, memory, restart."""
    per_file, rounds = (50_000, 3) if options.quick else (1_250_000, 3)
    with scratch() as folder:
        corpus(folder, transactions=per_file, keys=2_000, rounds=rounds, seed=81)
        files = [folder / "create.ndjson"] + [folder / f"transfer-{n + 1}.ndjson" for n in range(rounds)]
        canonical = sum(path.stat().st_size - per_file for path in files)
        with Node(folder) as node:
            idle_rss, idle_anon = node.memory()
            rates = []
            for path in files:
                done = load("upload", "--node", node.address, path)
                assert done["committed"] == per_file, done
                rates.append(done["per_second"])
                path.unlink()
            time.sleep(5)  # merges in the background end
            _, anon = node.memory()
            total = per_file * (rounds + 1)
            stored = disk_bytes(folder / "data")
            node.stop()
        with Node(folder) as node:
            clean = node.ready_seconds
            assert node.get("/api/v1/blocks/latest")["height"] > 0
            more = folder / "more"
            corpus(more, transactions=per_file // 5, keys=2_000, rounds=1, seed=82)
            load("upload", "--node", node.address, more / "create.ndjson")
            commit = load("upload", "--node", node.address, more / "transfer-1.ndjson")
            node.stop(signal.SIGKILL)
        with Node(folder) as node:
            killed = node.ready_seconds
        replay = [json.loads(line) for line in (folder / "node.log").read_text().splitlines()
                  if line.startswith("{") and "replayed_transactions" in line]
    results["long"] = {"rates": rates, "transactions": total, "idle_rss": idle_rss, "stored": stored,
                       "canonical": canonical, "clean_ready_seconds": clean, "killed_ready_seconds": killed,
                       "commit": commit, "replay": replay}
    ratio(f"cost per TRANSFER, last of {total:,} ÷ first", 1.3, "≤", rates[1] / rates[-1],
          f"{rates[1]:,.0f}/s, {rates[-1]:,.0f}/s")
    ratio("disk bytes ÷ canonical bytes", 1.3, "≤", stored / canonical, f"{stored:,} ÷ {canonical:,}")
    ratio("memory of an idle node, MB", 60, "≤", idle_rss / 1e6, "resident set after the start")
    ratio("memory per unspent output, bytes", 80, "≤", (anon - idle_anon) / per_file,
          f"growth of anonymous memory over {per_file:,} unspent outputs, caches included")
    ratio(f"ready after a clean stop with {total:,} transactions, seconds", 2, "≤", clean, "process start to listening")
    if replay:
        fields = replay[-1].get("fields", replay[-1])
        rate = fields["replayed_transactions"] / max(killed, 1e-9)
        ratio("replay rate after a kill ÷ commit rate", 1, "≥", rate / commit["per_second"],
              f"{fields['replayed_transactions']:,} transactions in {killed:.2f} s, whole start")


MEASUREMENTS = (batch, baseline, python, post, idle, subscribers, spoiled, long)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small corpora: does it run, and roughly how fast")
    parser.add_argument("only", nargs="*", choices=[[], *(m.__name__ for m in MEASUREMENTS)][1:] or None,
                        help="measurements to run; all of them when none is named")
    options = parser.parse_args()
    TARGET.mkdir(exist_ok=True)
    build()
    for measurement in MEASUREMENTS:
        if not options.only or measurement.__name__ in options.only:
            say(f"--- {measurement.__name__}: {measurement.__doc__.strip()}")
            measurement(options)
    (TARGET / "bench.json").write_text(json.dumps(results, indent=1))
    print("| what | goal | measured | met | how |\n|---|---|---:|---|---|")
    for row in table:
        print("| " + " | ".join(row) + " |")
    if any(row[3] == "NO" for row in table):
        raise SystemExit("a goal was missed")


if __name__ == "__main__":
    main()
