"""Measures how fast BigchainDB's and Planetmint's own Python code validates transactions on one core:
JSON text in, then their schema, id, input and signature checks, as their servers do it.

Usage: validate.py bigchaindb|planetmint [--quick]     (inside an environment with that package)

Prints one JSON line. Times are CPU time of the process, so that a busy neighbour does not count."""

import importlib.metadata
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

# Distinct transactions of each kind and sample; both packages cache what they have seen.
SAMPLES = 5
TRANSACTIONS_PER_SAMPLE = 1_000
TRANSACTIONS_PER_SAMPLE_QUICK = 50
OWNERS = 200
DISTRIBUTION = {"bigchaindb": "BigchainDB", "planetmint": "planetmint-transactions"}


class BigchainDB:
    def __init__(self):
        from bigchaindb.common.crypto import generate_key_pair
        from bigchaindb.models import Transaction

        self.generate_key_pair = generate_key_pair
        self.transaction = Transaction

    def load(self, value):
        return self.transaction.from_dict(value)

    def create(self, number, owner):
        return self.transaction.create(
            [owner.public_key],
            [([owner.public_key], 1000)],
            metadata={"batch": f"2024-{number:05}"},
            asset={"kind": "widget", "serial": f"SN-{number:08}"},
        ).sign([owner.private_key])

    def transfer(self, number, created, owner, recipient):
        return self.transaction.transfer(
            created.to_inputs(),
            [([recipient.public_key], 1000)],
            asset_id=created.id,
            metadata={"memo": f"part {number}"},
        ).sign([owner.private_key])


class Planetmint:
    def __init__(self):
        from ipld import marshal, multihash
        from transactions.common.crypto import generate_key_pair
        from transactions.common.transaction import Transaction
        from transactions.types.assets.create import Create
        from transactions.types.assets.transfer import Transfer

        self.generate_key_pair = generate_key_pair
        self.transaction, self.creation, self.transferral = Transaction, Create, Transfer
        self.content = lambda value: multihash(marshal(value))

    def load(self, value):
        # The second argument would switch the schema check off.
        return self.transaction.from_dict(value, False)

    def create(self, number, owner):
        return self.creation.generate(
            [owner.public_key],
            [([owner.public_key], 1000)],
            metadata=self.content({"batch": f"2024-{number:05}"}),
            assets=[{"data": self.content({"kind": "widget", "serial": f"SN-{number:08}"})}],
        ).sign([owner.private_key])

    def transfer(self, number, created, owner, recipient):
        return self.transferral.generate(
            created.to_inputs(),
            [([recipient.public_key], 1000)],
            asset_ids=[created.id],
            metadata=self.content({"memo": f"part {number}"}),
        ).sign([owner.private_key])


PACKAGES = {"bigchaindb": BigchainDB, "planetmint": Planetmint}


def write_corpus(package, count, folder):
    """CREATEs and TRANSFERs of them, one JSON text per line."""
    owners = [package.generate_key_pair() for _ in range(OWNERS)]
    with (folder / "creates").open("w") as creates, (folder / "transfers").open("w") as transfers:
        for number in range(count):
            owner, recipient = owners[number % OWNERS], owners[(number * 7 + 3) % OWNERS]
            created = package.create(number, owner)
            moved = package.transfer(number, created, owner, recipient)
            for file, each in ((creates, created), (transfers, moved)):
                file.write(json.dumps(each.to_dict(), ensure_ascii=False) + "\n")


def sampled(count, items, validate):
    """Transactions per second of CPU time: the median over the samples."""
    rates = []
    for start in range(0, len(items), count):
        sample = items[start : start + count]
        began = time.process_time()
        for each in sample:
            validate(each)
        rates.append(len(sample) / (time.process_time() - began))
    return statistics.median(rates)


def measure(name, count):
    import rapidjson

    package = PACKAGES[name]()
    with tempfile.TemporaryDirectory() as folder:
        # Made by another process, so that nothing of it is in a cache here.
        subprocess.run(
            [sys.executable, __file__, "--corpus", name, str(count * SAMPLES), folder], check=True
        )
        creates = (Path(folder) / "creates").read_text().splitlines()
        transfers = (Path(folder) / "transfers").read_text().splitlines()

    known = {}

    def create(text):
        transaction = package.load(rapidjson.loads(text))
        assert transaction.inputs_valid()
        known[transaction.id] = transaction

    def transfer(text):
        transaction = package.load(rapidjson.loads(text))
        links = [each.fulfills for each in transaction.inputs]
        assert transaction.inputs_valid([known[each.txid].outputs[each.output] for each in links])

    return {
        "event": "python-validation",
        "package": DISTRIBUTION[name],
        "version": importlib.metadata.version(DISTRIBUTION[name]),
        "python": sys.version.split()[0],
        "transactions": len(transfers),
        "bytes_per_transaction": sum(map(len, transfers)) // len(transfers),
        "creates_per_second_one_core": sampled(count, creates, create),
        "transactions_per_second_one_core": sampled(count, transfers, transfer),
    }


def main():
    if sys.argv[1] == "--corpus":
        write_corpus(PACKAGES[sys.argv[2]](), int(sys.argv[3]), Path(sys.argv[4]))
        return
    quick = "--quick" in sys.argv[2:]
    count = TRANSACTIONS_PER_SAMPLE_QUICK if quick else TRANSACTIONS_PER_SAMPLE
    print(json.dumps(measure(sys.argv[1], count)))


if __name__ == "__main__":
    main()
