"""COMPOSE and DECOMPOSE: several assets become one, and one becomes several (asset ledger 8)."""

import pytest
from planetmint_driver.offchain import (
    fulfill_transaction,
    prepare_compose_transaction,
    prepare_decompose_transaction,
)
from transactions.common.transaction import Transaction

from daybook_conformance.clients import content_identifier


def composed(driver, parts, owner, word, recipients):
    inputs = [each for part in parts for each in Transaction.from_dict(part).to_inputs([0])]
    draft = prepare_compose_transaction(
        inputs=inputs,
        assets=[content_identifier(word)] + [driver.asset_id(part) for part in parts],
        recipients=recipients,
    )
    return fulfill_transaction(draft, private_keys=[owner.private_key])


def test_two_assets_become_one(driver, alice, bob):
    wheel = driver.create(alice, asset=driver.asset("wheel"))
    frame = driver.create(alice, asset=driver.asset("frame"))
    sent = composed(driver, [wheel, frame], alice, "bicycle", [([alice.public_key], 1)])
    assert sent["operation"] == "COMPOSE"
    assert driver.send(sent) == sent
    assert driver.retrieve(sent["id"]) == sent
    assert driver.outputs(alice, spent=False) == [(sent["id"], 0)]

    moved = driver.transfer([(sent, 0)], [([bob.public_key], 1)], alice)
    assert driver.asset_id(moved) == sent["id"]
    assert driver.outputs(bob, spent=False) == [(moved["id"], 0)]
    # The history of an asset is its creation and its transfers (3.7).
    assert driver.history(sent["id"]) == [sent, moved]


def test_a_composed_asset_may_have_any_amount(driver, alice):
    parts = [
        driver.create(alice, [([alice.public_key], 5)], driver.asset(f"part {n}"))
        for n in range(3)
    ]
    sent = composed(driver, parts, alice, "a heap", [([alice.public_key], 1_000)])
    driver.send(sent)
    assert driver.outputs(alice, spent=False) == [(sent["id"], 0)]


def test_what_was_composed_cannot_be_spent_again(driver, alice, bob):
    parts = [driver.create(alice, asset=driver.asset(f"used {n}")) for n in range(2)]
    driver.send(composed(driver, parts, alice, "used up", [([alice.public_key], 1)]))
    again = driver.signed_transfer([(parts[0], 0)], [([bob.public_key], 1)], alice)
    with pytest.raises(driver.exceptions.BadRequest) as refused:
        driver.send(again)
    assert "(DoubleSpend)" in refused.value.info["message"]


def test_what_was_never_committed_cannot_be_composed(driver, alice):
    unsent = driver.signed_create(alice, asset=driver.asset("unsent"))
    sent = composed(driver, [unsent], alice, "of nothing", [([alice.public_key], 1)])
    with pytest.raises(driver.exceptions.BadRequest) as refused:
        driver.send(sent)
    assert "(InputDoesNotExist)" in refused.value.info["message"]


def decomposed(owner, whole, index, words):
    draft = prepare_decompose_transaction(
        inputs=Transaction.from_dict(whole).to_inputs([index]),
        assets=[whole["id"]] + [content_identifier(word) for word in words],
        recipients=[([owner.public_key], units) for units in range(1, len(words) + 1)],
    )
    # Here the driver gives an object that signs itself.
    return draft.sign([owner.private_key]).to_dict()


def test_an_asset_comes_apart(driver, alice):
    whole = driver.create(alice, asset=driver.asset("a bicycle to take apart"))
    sent = decomposed(alice, whole, 0, ["wheel", "frame", "saddle"])
    assert sent["operation"] == "DECOMPOSE"
    assert driver.send(sent) == sent
    assert driver.outputs(alice, spent=False) == [(sent["id"], n) for n in range(3)]


def test_only_the_whole_of_an_asset_comes_apart(driver, alice):
    halves = [([alice.public_key], 1), ([alice.public_key], 1)]
    whole = driver.create(alice, halves, driver.asset("two halves"))
    with pytest.raises(driver.exceptions.BadRequest) as refused:
        driver.send(decomposed(alice, whole, 0, ["one", "two"]))
    assert "(AmountError)" in refused.value.info["message"]


def test_a_stranger_cannot_compose(driver, alice, bob):
    parts = [driver.create(alice, asset=driver.asset(f"guarded {n}")) for n in range(2)]
    inputs = [each for part in parts for each in Transaction.from_dict(part).to_inputs([0])]
    for each in inputs:
        each.owners_before = [bob.public_key]
    draft = prepare_compose_transaction(
        inputs=inputs,
        assets=[content_identifier("stolen")] + [part["id"] for part in parts],
        recipients=[([bob.public_key], 1)],
    )
    for each in draft["inputs"]:
        each["fulfillment"] = {"type": "ed25519-sha-256", "public_key": bob.public_key}
    signed = fulfill_transaction(draft, private_keys=[bob.private_key])
    with pytest.raises(driver.exceptions.BadRequest) as refused:
        driver.send(signed)
    assert "(InvalidSignature)" in refused.value.info["message"]
    assert driver.outputs(alice, spent=False) == [(part["id"], 0) for part in parts]
