"""What must not be accepted, and how each driver says so to its caller."""

import pytest

from daybook_conformance import conditions


def refusal(driver, transaction, mode="commit"):
    with pytest.raises(driver.exceptions.BadRequest) as refused:
        driver.send(transaction, mode)
    assert refused.value.status_code == 400
    assert refused.value.info["status"] == 400
    return refused.value.info["message"]


@pytest.mark.parametrize("mode", ("async", "sync", "commit"))
def test_the_same_creation_twice_is_a_duplicate(driver, alice, mode):
    created = driver.create(alice, asset=driver.asset(f"once {mode}"))
    text = refusal(driver, created, mode)
    assert "(DuplicateTransaction)" in text and f"`{created['id']}`" in text


def test_a_spent_output_is_not_spent_again(driver, alice, bob, carol):
    created = driver.create(alice, asset=driver.asset("a single coin"))
    moved = driver.transfer([(created, 0)], [([bob.public_key], 1)], alice)
    again = driver.signed_transfer([(created, 0)], [([carol.public_key], 1)], alice)
    text = refusal(driver, again)
    assert "(DoubleSpend)" in text and created["id"] in text
    assert "(DoubleSpend)" in refusal(driver, moved)
    assert driver.outputs(bob, spent=False) == [(moved["id"], 0)]
    assert driver.outputs(carol) == []


def test_one_transaction_does_not_spend_an_output_twice(driver, alice, bob):
    created = driver.create(alice, [([alice.public_key], 5)], driver.asset("five"))
    sent = driver.signed_transfer([(created, 0), (created, 0)], [([bob.public_key], 10)], alice)
    assert "(DoubleSpend)" in refusal(driver, sent)


def test_a_stranger_cannot_take_an_asset(driver, alice, bob):
    created = driver.create(alice, asset=driver.asset("not yours"))
    draft = driver.prepare_transfer([(created, 0)], [([bob.public_key], 1)])
    draft["inputs"][0]["owners_before"] = [bob.public_key]
    draft["inputs"][0]["fulfillment"]["public_key"] = bob.public_key
    assert "(InvalidSignature)" in refusal(driver, driver.fulfill(draft, bob))
    assert driver.outputs(alice, spent=False) == [(created["id"], 0)]


def test_an_asset_cannot_be_created_in_the_name_of_another(driver, alice, bob):
    draft = driver.prepare_create([alice.public_key], asset=driver.asset("forged issuer"))
    text = refusal(driver, conditions.signed_by_one(draft, bob))
    assert "(InvalidSignature)" in text


def test_a_changed_transaction_does_not_keep_its_id(driver, alice):
    signed = driver.signed_create(alice, asset=driver.asset("as signed"))
    signed["outputs"][0]["amount"] = "1000"
    assert "(InvalidHash)" in refusal(driver, signed)


def test_an_unknown_input_is_refused(driver, alice, bob):
    unsent = driver.signed_create(alice, asset=driver.asset("never sent"))
    sent = driver.signed_transfer([(unsent, 0)], [([bob.public_key], 1)], alice)
    text = refusal(driver, sent)
    assert "(InputDoesNotExist)" in text and f"`{unsent['id']}`" in text


def test_an_unsigned_draft_is_refused(driver, alice):
    draft = driver.prepare_create([alice.public_key], asset=driver.asset("a draft"))
    with pytest.raises(driver.exceptions.BadRequest):
        driver.send(draft)


def test_what_is_not_there_is_not_found(driver):
    with pytest.raises(driver.exceptions.NotFoundError):
        driver.retrieve("0" * 64)
    with pytest.raises(driver.exceptions.NotFoundError):
        driver.block(1_000_000)
    assert driver.history("0" * 64) == []
