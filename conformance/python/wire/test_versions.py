"""Versions 2.0 and 3.0 over one ledger (asset ledger 2.2 and 8)."""

import base64

import pytest

from daybook_conformance.canonical import with_id
from daybook_conformance.clients import content_identifier


@pytest.mark.parametrize("data", ({"an": "object"}, "a string", "", None), ids=repr)
@pytest.mark.parametrize("metadata", ({"an": "object"}, "a string", None), ids=repr)
def test_a_2_0_asset_may_be_an_object_a_string_or_null(
    post, get, creation, keypair, data, metadata
):
    sent = creation(keypair(), data, metadata)
    answer = post(sent)
    assert answer.status_code == 202, answer.text
    assert get(f"/transactions/{sent['id']}").json() == sent


def test_a_2_0_transaction_spends_an_output_of_a_3_0_transaction(
    post, get, creation_v3, transfer, keypair
):
    alice, bob = keypair(), keypair()
    created = creation_v3(alice, "made in 3.0")
    assert post(created).status_code == 202
    moved = transfer(created, alice, bob)
    assert post(moved).status_code == 202
    assert get("/transactions", asset_id=created["id"]).json() == [created, moved]
    assert get("/transactions", asset_ids=created["id"]).json() == [created, moved]


def test_item_57_a_3_0_creation_with_a_broken_or_foreign_signature_is_refused(
    post, creation_v3, keypair
):
    alice, mallory = keypair(), keypair()
    sound = creation_v3(alice, "guarded")
    text = sound["inputs"][0]["fulfillment"]
    raw = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    raw[60] ^= 1
    broken = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    foreign = creation_v3(mallory, "guarded")["inputs"][0]["fulfillment"]
    for fulfillment in (broken, foreign):
        inputs = [{**sound["inputs"][0], "fulfillment": fulfillment}]
        answer = post(with_id({**sound, "inputs": inputs}))
        assert answer.status_code == 400
        assert "(InvalidSignature)" in answer.json()["message"]
    assert post(sound).status_code == 202


@pytest.mark.parametrize(
    "members",
    (
        {"assets": [{"data": {"an": "object"}}]},
        {"metadata": {"an": "object"}},
        {"asset": {"data": None}},
        {"version": "4.0"},
        {"version": "2.0"},
        {"assets": [{"data": None}, {"data": None}]},
    ),
    ids=repr,
)
def test_item_58_members_of_the_wrong_version_are_refused(
    post, creation_v3, keypair, members
):
    answer = post(creation_v3(keypair(), "misfit", **members))
    assert answer.status_code == 400
    assert answer.json()["status"] == 400


def test_both_dialects_find_content_by_its_identifier(post, get, creation_v3, keypair):
    sent = creation_v3(keypair(), "found twice", metadata=content_identifier("remark"))
    assert post(sent).status_code == 202
    cid = content_identifier("found twice")
    assert get(f"/assets/{cid}").json() == [{"data": cid}]
    assert get(f"//assets//{cid}").json() == [{"data": cid}]
    assert get(f"/metadata/{content_identifier('remark')}").json() == [
        content_identifier("remark")
    ]
