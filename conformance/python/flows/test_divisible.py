"""Amounts: splitting, merging, and sums that must not change."""

import pytest

AMOUNT_MAX = 9 * 10**18


def amounts(transaction):
    return [int(output["amount"]) for output in transaction["outputs"]]


def test_an_amount_is_split_and_merged_again(driver, alice, bob):
    created = driver.create(alice, [([alice.public_key], 10)], driver.asset("ten hours"))
    split = driver.transfer(
        [(created, 0)], [([bob.public_key], 3), ([alice.public_key], 7)], alice
    )
    assert amounts(split) == [3, 7]
    assert driver.outputs(bob, spent=False) == [(split["id"], 0)]
    assert driver.outputs(alice, spent=False) == [(split["id"], 1)]

    merged = driver.transfer([(split, 0), (split, 1)], [([bob.public_key], 10)], bob, alice)
    assert amounts(merged) == [10]
    assert driver.outputs(bob, spent=False) == [(merged["id"], 0)]
    assert driver.outputs(alice, spent=False) == []


def test_outputs_of_several_transactions_are_merged(driver, alice, bob, carol):
    created = driver.create(
        alice, [([bob.public_key], 4), ([bob.public_key], 5)], driver.asset("nine hours")
    )
    first = driver.transfer([(created, 0)], [([carol.public_key], 4)], bob)
    second = driver.transfer([(created, 1)], [([carol.public_key], 5)], bob)
    merged = driver.transfer([(first, 0), (second, 0)], [([alice.public_key], 9)], carol)
    assert driver.outputs(alice, spent=False) == [(merged["id"], 0)]
    assert driver.outputs(carol, spent=False) == []


def test_two_outputs_of_the_largest_amount_move_together(driver, alice, bob):
    created = driver.create(
        alice, [([alice.public_key], AMOUNT_MAX)] * 2, driver.asset("more than 64 bits")
    )
    moved = driver.transfer(
        [(created, 0), (created, 1)], [([bob.public_key], AMOUNT_MAX)] * 2, alice
    )
    assert driver.retrieve(moved["id"]) == moved


@pytest.mark.parametrize("paid", (9, 11))
def test_more_or_less_than_was_there_is_refused_and_changes_nothing(driver, alice, bob, paid):
    created = driver.create(alice, [([alice.public_key], 10)], driver.asset(f"paid {paid}"))
    sent = driver.signed_transfer([(created, 0)], [([bob.public_key], paid)], alice)
    with pytest.raises(driver.exceptions.BadRequest) as refused:
        driver.send(sent)
    text = refused.value.info["message"]
    assert "(AmountError)" in text and "`10`" in text and f"`{paid}`" in text
    assert driver.outputs(alice, spent=False) == [(created["id"], 0)]
    assert driver.outputs(bob) == []


def test_inputs_of_two_assets_do_not_mix(driver, alice, bob):
    one = driver.create(alice, [([alice.public_key], 1)], driver.asset("apples"))
    two = driver.create(alice, [([alice.public_key], 1)], driver.asset("pears"))
    sent = driver.signed_transfer([(one, 0), (two, 0)], [([bob.public_key], 2)], alice)
    with pytest.raises(driver.exceptions.BadRequest) as refused:
        driver.send(sent)
    assert "(AssetIdMismatch)" in refused.value.info["message"]
