"""Canonical text, ids and signed messages (asset ledger 4.2-4.4), for transactions that no client
library makes. The text itself is written by the library that the drivers bring along."""

import copy
import hashlib

import rapidjson


def canonical(value):
    return rapidjson.dumps(value, sort_keys=True, ensure_ascii=False).encode()


def transaction_id(transaction):
    return hashlib.sha3_256(canonical({**transaction, "id": None})).hexdigest()


def message(transaction, index):
    """The 32 bytes that the signatures of one input cover."""
    bare = copy.deepcopy(transaction)
    bare["id"] = None
    for each in bare["inputs"]:
        each["fulfillment"] = None
    text = canonical(bare)
    link = transaction["inputs"][index]["fulfills"]
    if link is not None:
        text += f"{link['transaction_id']}{link['output_index']}".encode()
    return hashlib.sha3_256(text).digest()


def with_id(transaction):
    return {**transaction, "id": transaction_id(transaction)}
