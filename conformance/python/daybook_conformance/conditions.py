"""Conditions and fulfillments made with the library that the driver under test brings along, for
shapes that the driver itself cannot make."""

import base58

try:
    from cryptoconditions import Ed25519Sha256, ThresholdSha256
except ImportError:
    from planetmint_cryptoconditions import Ed25519Sha256, ThresholdSha256

from daybook_conformance.canonical import message, with_id


def single(public_key):
    return Ed25519Sha256(public_key=base58.b58decode(public_key))


def threshold(needed, *subconditions):
    condition = ThresholdSha256(threshold=needed)
    for each in subconditions:
        condition.add_subfulfillment(each)
    return condition


def details(condition):
    if condition.type_name == "ed25519-sha-256":
        key = base58.b58encode(condition.public_key)
        return {
            "type": "ed25519-sha-256",
            "public_key": key.decode() if isinstance(key, bytes) else key,
        }
    return {
        "type": "threshold-sha-256",
        "threshold": condition.threshold,
        "subconditions": [details(each["body"]) for each in condition.subconditions],
    }


def output(condition, public_keys, amount=1):
    return {
        "amount": str(amount),
        "condition": {"details": details(condition), "uri": condition.condition_uri},
        "public_keys": list(public_keys),
    }


def signature(transaction, index, keypair):
    """The fulfillment of one key over one input."""
    fulfillment = single(keypair.public_key)
    fulfillment.sign(message(transaction, index), base58.b58decode(keypair.private_key))
    return fulfillment


def signed_by_one(transaction, keypair):
    """Every input signed by the same key, then named by its id."""
    parts = [signature(transaction, i, keypair) for i in range(len(transaction["inputs"]))]
    inputs = [
        {**each, "fulfillment": part.serialize_uri()}
        for each, part in zip(transaction["inputs"], parts)
    ]
    return with_id({**transaction, "inputs": inputs})


def signed_by_some(transaction, signers, others):
    """The only input opened by `signers`; the keys in `others` stay conditions."""
    fulfillment = ThresholdSha256(threshold=len(signers))
    for keypair in signers:
        fulfillment.add_subfulfillment(signature(transaction, 0, keypair))
    for public_key in others:
        fulfillment.add_subcondition(single(public_key).condition)
    return opened_by(transaction, fulfillment)


def opened_by(transaction, fulfillment):
    """The only input opened by a fulfillment that was made elsewhere."""
    inputs = [{**transaction["inputs"][0], "fulfillment": fulfillment.serialize_uri()}]
    return with_id({**transaction, "inputs": inputs})
