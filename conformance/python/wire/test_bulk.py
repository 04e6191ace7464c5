"""The doors for those in a hurry, used with everyday libraries: a streaming upload with `requests`, a
pipelining socket with `websocket-client`."""

import json

import requests
import websocket

from daybook_conformance.canonical import canonical
from daybook_conformance.stream import FRAME_SECONDS_MAX

TRANSACTIONS = 300


def upload(node, transactions, **parameters):
    """Sends a chunk per transaction and gives the result lines."""
    answer = requests.post(
        f"{node.api}/transactions/batch",
        params=parameters,
        data=(canonical(each) + b"\n" for each in transactions),
        stream=True,
    )
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.iter_lines()]


def test_a_batch_is_answered_line_by_line_with_the_place_of_each(node, get, creation, keypair):
    issuer = keypair()
    sent = [creation(issuer, {"line": n}) for n in range(TRANSACTIONS)]
    results = upload(node, sent)
    assert [result["line"] for result in results] == list(range(TRANSACTIONS))
    assert [result["id"] for result in results] == [each["id"] for each in sent]
    assert {result["status"] for result in results} == {"committed"}
    for result in results[:: TRANSACTIONS // 10]:
        block = get(f"/blocks/{result['height']}").json()
        assert block["transaction_ids"][result["index"]] == result["id"]


def test_a_repeated_batch_is_answered_with_the_first_outcomes(node, creation, keypair):
    issuer = keypair()
    sent = [creation(issuer, {"repeated": n}) for n in range(10)]
    places = [(result["height"], result["index"]) for result in upload(node, sent)]
    again = upload(node, sent)
    assert [(result["height"], result["index"]) for result in again] == places
    assert all(result["status"] == "committed" and result["repeated"] for result in again)


def test_children_follow_their_parents_in_one_batch_and_rivals_do_not(
    node, get, follow, creation, transfer, keypair
):
    lost = follow("rejected_transactions")
    alice, bob, carol = keypair(), keypair(), keypair()
    created = creation(alice, {"contended": "in one batch"})
    first, second = transfer(created, alice, bob), transfer(created, alice, carol)
    results = upload(node, [created, first, second], ack="accepted")
    assert [result["status"] for result in results] == ["accepted"] * 3

    frame = lost.wait_for_frames(1)[0]
    assert frame["transaction_id"] == second["id"]
    assert frame["class"] == "DoubleSpend"
    fate = get(f"/transactions/{second['id']}/status").json()
    assert (fate["status"], fate["class"]) == ("rejected", "DoubleSpend")
    assert get(f"/transactions/{first['id']}/status").json()["status"] == "committed"
    assert get(f"/transactions/{second['id']}").status_code == 404
    assert get("/transactions", asset_id=created["id"]).json() == [created, first]


def test_a_submitting_socket_takes_a_pipeline_of_messages(node, creation, keypair):
    issuer = keypair()
    sent = [creation(issuer, {"message": n}) for n in range(TRANSACTIONS)]
    socket = websocket.create_connection(
        node.http.replace("http://", "ws://") + "/api/v1/transactions/submit",
        timeout=FRAME_SECONDS_MAX,
    )
    for number, each in enumerate(sent):
        socket.send(json.dumps({"tag": f"number {number}", "transaction": each}))
    replies = {}
    for _ in sent:
        reply = json.loads(socket.recv())
        replies[reply["tag"]] = reply
    socket.close()
    for number, each in enumerate(sent):
        reply = replies[f"number {number}"]
        assert (reply["status"], reply["id"]) == ("committed", each["id"])
