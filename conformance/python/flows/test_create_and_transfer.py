"""An asset comes into being, changes hands, and reads back as it was sent."""

import pytest

# The modes of 3.5. Only `commit` promises that the transaction can be read when the answer is there.
MODES = ("async", "sync", "commit")


def test_a_created_asset_is_answered_and_read_back_as_it_was_sent(driver):
    for asset in driver.assets_offered():
        sent = driver.signed_create(driver.keypair(), asset=asset)
        assert sent["version"] == driver.version
        answered = driver.send(sent)
        assert answered == sent
        assert driver.retrieve(sent["id"]) == sent


def test_metadata_is_kept(driver, alice):
    metadata = driver.metadata("first owner")
    created = driver.create(alice, asset=driver.asset("LX-2"), metadata=metadata)
    assert driver.retrieve(created["id"])["metadata"] == metadata


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_takes_a_transaction_and_it_commits(driver, alice, follow, mode):
    subscriber = follow()
    sent = driver.signed_create(alice, asset=driver.asset(f"mode {mode}"))
    assert driver.send(sent, mode) == sent
    subscriber.wait(lambda s: any(f["transaction_id"] == sent["id"] for f in s.frames))
    assert driver.retrieve(sent["id"]) == sent


def test_a_transfer_hands_the_asset_to_the_next_owner(driver, alice, bob):
    created = driver.create(alice, asset=driver.asset("LX-3"))
    moved = driver.transfer([(created, 0)], [([bob.public_key], 1)], alice)
    assert driver.retrieve(moved["id"]) == moved
    assert driver.asset_id(moved) == created["id"]
    assert driver.outputs(bob, spent=False) == [(moved["id"], 0)]
    assert driver.outputs(alice, spent=False) == []


def test_an_asset_goes_from_hand_to_hand_and_its_history_is_in_order(driver, alice, bob, carol):
    created = driver.create(alice, asset=driver.asset("LX-4"))
    second = driver.transfer([(created, 0)], [([bob.public_key], 1)], alice)
    third = driver.transfer([(second, 0)], [([carol.public_key], 1)], bob)
    assert driver.history(created["id"]) == [created, second, third]
    assert driver.history(created["id"], "CREATE") == [created]
    assert driver.history(created["id"], "TRANSFER") == [second, third]


def test_an_asset_can_be_created_for_somebody_else(driver, alice, bob):
    created = driver.create(alice, [([bob.public_key], 1)], driver.asset("a present"))
    assert driver.outputs(bob) == [(created["id"], 0)]
    assert driver.outputs(alice) == []
    returned = driver.transfer([(created, 0)], [([alice.public_key], 1)], bob)
    assert driver.outputs(alice) == [(returned["id"], 0)]
