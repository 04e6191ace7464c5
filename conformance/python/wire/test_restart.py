"""What was answered once is there after a stop, and after a kill."""

import signal

import pytest
import requests

from daybook_conformance.clients import installed
from daybook_conformance.node import Node, fresh_folder
from daybook_conformance.stream import Subscriber

TRANSACTIONS = 30


def everything(node):
    """All blocks, as HTTP tells them."""
    tip = requests.get(f"{node.api}/blocks/latest").json()["height"]
    return [requests.get(f"{node.api}/blocks/{height}").json() for height in range(1, tip + 1)]


def announced(node, count):
    """The first `count` frames of the stream from the first block on."""
    with Subscriber(node.stream_address("valid_transactions?from=1")) as subscriber:
        return subscriber.wait_for_frames(count)[:count]


@pytest.mark.parametrize("ending", (signal.SIGTERM, signal.SIGKILL), ids=lambda each: each.name)
def test_a_node_goes_on_where_it_ended(creation, transfer, ending):
    folder = fresh_folder(f"restart-{ending.name}")
    with Node(folder) as node:
        alice, bob = (installed()(node).keypair() for _ in range(2))
        created = [creation(alice, {"kept": n}) for n in range(TRANSACTIONS)]
        moved = [transfer(each, alice, bob) for each in created[::2]]
        for each in created + moved:
            answer = requests.post(f"{node.api}/transactions?mode=commit", json=each)
            assert answer.status_code == 202, answer.text
        blocks = everything(node)
        frames = announced(node, len(created + moved))
        if ending == signal.SIGKILL:
            node.kill()

    with Node(folder) as node:
        assert everything(node) == blocks
        assert announced(node, len(frames)) == frames
        for owner, spent, expected in (
            (alice, "false", created[1::2]),
            (alice, "true", created[::2]),
            (bob, "false", moved),
        ):
            found = requests.get(
                f"{node.api}/outputs", params={"public_key": owner.public_key, "spent": spent}
            ).json()
            assert [each["transaction_id"] for each in found] == [each["id"] for each in expected]
        again = requests.post(f"{node.api}/transactions?mode=commit", json=moved[0])
        assert (again.status_code, "(DoubleSpend)" in again.text) == (400, True)
        onward = creation(bob, {"after": ending.name})
        assert requests.post(f"{node.api}/transactions?mode=commit", json=onward).ok
        assert everything(node)[len(blocks)]["transaction_ids"] == [onward["id"]]
