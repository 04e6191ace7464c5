"""The event streams as a bare WebSocket client sees them (asset ledger 9)."""

import socket
import time

import pytest
import requests
import websocket

TRANSACTIONS = 10
# More than any socket buffer and subscriber queue holds, so that a silent reader must be noticed.
FLOOD_TRANSACTIONS = 400
FLOOD_TEXT_BYTES = 20_000


def test_item_52_ten_async_creations_are_each_announced_once_in_block_order(
    post, get, follow, creation, keypair
):
    subscriber = follow()
    issuer = keypair()
    sent = [creation(issuer, {"n": n}) for n in range(TRANSACTIONS)]
    for each in sent:
        assert post(each, "async").status_code == 202
    frames = subscriber.wait_for_frames(TRANSACTIONS)
    announced = [frame["transaction_id"] for frame in frames]
    assert sorted(announced) == sorted(each["id"] for each in sent)
    for frame in frames:
        assert get(f"/transactions/{frame['transaction_id']}").status_code == 200
        assert get("/blocks", transaction_id=frame["transaction_id"]).json() == [frame["height"]]
    in_blocks = []
    for height in sorted({frame["height"] for frame in frames}):
        in_blocks += get(f"/blocks/{height}").json()["transaction_ids"]
    assert announced == in_blocks


def test_item_53_a_block_is_announced_with_height_hash_and_ids(
    post, get, follow, creation, keypair
):
    subscriber = follow("valid_blocks")
    sent = creation(keypair(), {"announced": "in its block"})
    assert post(sent).status_code == 202
    frame = subscriber.wait(
        lambda s: any(sent["id"] in f["transaction_ids"] for f in s.frames)
    )[-1]
    block = get(f"/blocks/{frame['height']}").json()
    assert frame["transaction_ids"] == block["transaction_ids"]
    assert frame["hash"] == block["app_hash"]


def test_item_54_what_a_client_sends_changes_nothing_and_a_ping_is_answered(
    post, follow, creation, keypair
):
    subscriber = follow()
    subscriber.socket.send("hello")
    subscriber.socket.send('{"broken": ')
    subscriber.socket.send_binary(b"\x00\xff\x00")
    subscriber.socket.ping("abc")
    subscriber.wait(lambda s: s.pongs == [b"abc"])
    sent = creation(keypair(), {"after": "rubbish"})
    assert post(sent).status_code == 202
    frames = subscriber.wait_for_frames(1)
    assert [frame["transaction_id"] for frame in frames] == [sent["id"]]


def test_item_55_a_subscriber_that_never_reads_delays_nobody(
    post, node, follow, creation, keypair
):
    mute = websocket.create_connection(
        node.stream_address("valid_blocks"),
        sockopt=((socket.SOL_SOCKET, socket.SO_RCVBUF, 4096),),
    )
    reader = follow()
    issuer = keypair()
    text = "x" * FLOOD_TEXT_BYTES
    slowest = 0.0
    for n in range(FLOOD_TRANSACTIONS):
        sent = creation(issuer, {"n": n, "text": text})
        started = time.monotonic()
        assert post(sent).status_code == 202
        slowest = max(slowest, time.monotonic() - started)
    assert len(reader.wait_for_frames(FLOOD_TRANSACTIONS)) == FLOOD_TRANSACTIONS
    # A node that waits for the mute subscriber does so until a time-out of many seconds.
    assert slowest < 5
    mute.close()


@pytest.mark.parametrize("stream", ("valid_transactions", "valid_blocks"))
def test_a_stream_asked_for_without_an_upgrade_is_refused(node, stream):
    address = node.stream_address(stream).replace("ws://", "http://")
    assert requests.get(address).status_code == 400


def test_an_unknown_stream_is_not_found(node):
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(node.stream_address("no_such_stream"))
    assert refused.value.status_code == 404


def test_the_main_listener_serves_the_same_streams(post, node, follow, creation, keypair):
    address = node.http.replace("http://", "ws://") + "/api/v1/streams/valid_transactions"
    subscriber = follow(address=address)
    sent = creation(keypair(), {"door": "main"})
    assert post(sent).status_code == 202
    assert subscriber.wait_for_frames(1)[0]["transaction_id"] == sent["id"]


def test_a_stream_resumes_from_a_height_without_gap_or_repeat(
    post, get, node, follow, creation, keypair
):
    issuer = keypair()
    sent = [creation(issuer, {"resumed": n}) for n in range(TRANSACTIONS)]
    for each in sent[: TRANSACTIONS // 2]:
        assert post(each).status_code == 202
    start = get("/blocks", transaction_id=sent[0]["id"]).json()[0]
    subscriber = follow(address=node.stream_address(f"valid_transactions?from={start}"))
    for each in sent[TRANSACTIONS // 2 :]:
        assert post(each).status_code == 202
    frames = subscriber.wait_for_frames(TRANSACTIONS)
    assert [frame["transaction_id"] for frame in frames] == [each["id"] for each in sent]
