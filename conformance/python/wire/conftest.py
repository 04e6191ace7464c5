"""Plain HTTP and WebSocket, without any driver."""

import pytest
import requests

from daybook_conformance import conditions
from daybook_conformance.clients import content_identifier, installed


@pytest.fixture
def post(node):
    """Posts one transaction and answers with the response."""

    def send(transaction, mode="commit"):
        return requests.post(f"{node.api}/transactions", params={"mode": mode}, json=transaction)

    return send


@pytest.fixture
def get(node):
    return lambda path, **parameters: requests.get(node.api + path, params=parameters)


@pytest.fixture
def creation():
    """A signed CREATE of version 2.0 around any asset data and metadata."""

    def make(issuer, data=None, metadata=None):
        return conditions.signed_by_one(
            {
                "version": "2.0",
                "operation": "CREATE",
                "asset": {"data": data},
                "metadata": metadata,
                "inputs": [creation_input(issuer)],
                "outputs": [owned_by(issuer)],
                "id": None,
            },
            issuer,
        )

    return make


@pytest.fixture
def creation_v3():
    """A signed CREATE of version 3.0."""

    def make(issuer, text, **members):
        return conditions.signed_by_one(
            {
                "version": "3.0",
                "operation": "CREATE",
                "assets": [{"data": content_identifier(text)}],
                "metadata": None,
                "inputs": [creation_input(issuer)],
                "outputs": [owned_by(issuer)],
                "id": None,
                **members,
            },
            issuer,
        )

    return make


@pytest.fixture
def transfer():
    """A signed TRANSFER of version 2.0 of output 0 of a CREATE."""

    def make(created, owner, recipient, amount=1):
        return conditions.signed_by_one(
            {
                "version": "2.0",
                "operation": "TRANSFER",
                "asset": {"id": created["id"]},
                "metadata": None,
                "inputs": [
                    {
                        "fulfillment": None,
                        "fulfills": {"transaction_id": created["id"], "output_index": 0},
                        "owners_before": [owner.public_key],
                    }
                ],
                "outputs": [owned_by(recipient, amount)],
                "id": None,
            },
            owner,
        )

    return make


@pytest.fixture
def keypair(node):
    return installed()(node).keypair


def creation_input(issuer):
    return {"fulfillment": None, "fulfills": None, "owners_before": [issuer.public_key]}


def owned_by(owner, amount=1):
    return conditions.output(conditions.single(owner.public_key), [owner.public_key], amount)
