"""Outputs of several keys: all of them, or m of n."""

import itertools

import pytest

from daybook_conformance import conditions
from daybook_conformance.canonical import with_id


def test_two_owners_spend_together(driver, alice, bob, carol):
    both = [alice.public_key, bob.public_key]
    created = driver.create(alice, [(both, 1)], driver.asset("a shared flat"))
    assert driver.outputs(alice) == driver.outputs(bob) == [(created["id"], 0)]
    moved = driver.transfer([(created, 0)], [([carol.public_key], 1)], alice, bob)
    assert driver.outputs(carol) == [(moved["id"], 0)]
    assert driver.outputs(alice, spent=False) == driver.outputs(bob, spent=False) == []


def test_two_issuers_create_together(driver, alice, bob):
    draft = driver.prepare_create(
        [alice.public_key, bob.public_key], asset=driver.asset("a joint work")
    )
    created = driver.send(driver.fulfill(draft, alice, bob))
    assert driver.outputs(alice) == driver.outputs(bob) == [(created["id"], 0)]


def test_one_of_two_owners_is_not_enough(driver, alice, bob, carol):
    both = [alice.public_key, bob.public_key]
    created = driver.create(alice, [(both, 1)], driver.asset("a shared boat"))
    draft = driver.prepare_transfer([(created, 0)], [([carol.public_key], 1)])
    for forged in (
        conditions.signed_by_one(draft, alice),
        conditions.signed_by_some(draft, [alice], [bob.public_key]),
        conditions.signed_by_some(draft, [alice, alice], []),
    ):
        with pytest.raises(driver.exceptions.BadRequest) as refused:
            driver.send(forged)
        assert "(InvalidSignature)" in refused.value.info["message"]
    assert driver.outputs(alice, spent=False) == [(created["id"], 0)]


def two_of_three(driver, keypairs):
    """The drivers lock outputs by all keys only; this one opens to any two of three."""
    keys = [pair.public_key for pair in keypairs]
    draft = driver.prepare_create([keys[0]], asset=driver.asset("-".join(keys)))
    condition = conditions.threshold(2, *map(conditions.single, keys))
    draft["outputs"] = [conditions.output(condition, keys)]
    return driver.send(conditions.signed_by_one(draft, keypairs[0]))


@pytest.mark.parametrize("absent", range(3))
def test_any_two_of_three_owners_spend(driver, alice, bob, carol, absent):
    owners = [alice, bob, carol]
    created = two_of_three(driver, owners)
    assert all(driver.outputs(owner) == [(created["id"], 0)] for owner in owners)
    present = [owner for index, owner in enumerate(owners) if index != absent]
    draft = driver.prepare_transfer([(created, 0)], [([alice.public_key], 1)])
    signed = conditions.signed_by_some(draft, present, [owners[absent].public_key])
    assert driver.send(signed) == signed
    assert driver.outputs(alice, spent=False) == [(signed["id"], 0)]


def test_two_of_three_is_not_opened_otherwise(driver, alice, bob, carol):
    owners = [alice, bob, carol]
    created = two_of_three(driver, owners)
    stranger = driver.keypair()
    draft = driver.prepare_transfer([(created, 0)], [([stranger.public_key], 1)])
    keys = [owner.public_key for owner in owners]
    forged = [
        conditions.signed_by_some(draft, [alice], keys[1:]),
        conditions.signed_by_some(draft, owners, []),
        conditions.signed_by_some(draft, [alice, alice], keys[1:]),
        conditions.signed_by_some(draft, [alice, bob], []),
        conditions.signed_by_some(draft, [alice, stranger], keys[2:]),
    ]
    for transaction in forged:
        with pytest.raises(driver.exceptions.BadRequest) as refused:
            driver.send(transaction)
        assert "(InvalidSignature)" in refused.value.info["message"]
    assert driver.outputs(alice, spent=False) == [(created["id"], 0)]


def test_issuers_sign_through_the_condition_of_what_they_make(driver, alice, bob, carol):
    keys = [pair.public_key for pair in (alice, bob, carol)]
    draft = driver.prepare_create(keys[:2], asset=driver.asset("a dish washer"))
    condition = conditions.threshold(2, *map(conditions.single, keys))
    draft["outputs"] = [conditions.output(condition, keys)]
    stranger = conditions.signed_by_some(draft, [bob, carol], keys[:1])
    with pytest.raises(driver.exceptions.BadRequest) as refused:
        driver.send(stranger)
    assert "(InvalidSignature)" in refused.value.info["message"]
    created = driver.send(conditions.signed_by_some(draft, [alice, bob], keys[2:]))
    assert driver.outputs(carol) == [(created["id"], 0)]


def test_one_alone_or_two_others_together_open_a_nested_condition(driver, alice, bob, carol):
    keys = [pair.public_key for pair in (alice, bob, carol)]
    draft = driver.prepare_create(keys[:2], asset=driver.asset("a trash can"))
    both = conditions.threshold(2, *map(conditions.single, keys[1:]))
    condition = conditions.threshold(1, conditions.single(keys[0]), both)
    draft["outputs"] = [conditions.output(condition, keys)]
    alone = conditions.ThresholdSha256(threshold=1)
    alone.add_subfulfillment(conditions.signature(draft, 0, alice))
    alone.add_subcondition(both.condition)
    created = driver.send(conditions.opened_by(draft, alone))

    draft = driver.prepare_transfer([(created, 0)], [([alice.public_key], 1)])
    signatures = [conditions.signature(draft, 0, each) for each in (bob, carol)]
    together = conditions.ThresholdSha256(threshold=1)
    together.add_subcondition(conditions.single(keys[0]).condition)
    together.add_subfulfillment(conditions.threshold(2, *signatures))
    moved = driver.send(conditions.opened_by(draft, together))
    assert driver.outputs(alice, spent=False) == [(moved["id"], 0)]


def test_the_order_of_subconditions_does_not_matter(alice, bob, carol):
    keys = [pair.public_key for pair in (alice, bob, carol)]
    addresses = {
        conditions.threshold(2, *map(conditions.single, order)).condition_uri
        for order in itertools.permutations(keys)
    }
    assert len(addresses) == 1


def test_a_condition_address_that_does_not_follow_from_its_details_is_refused(driver, alice, bob):
    draft = driver.prepare_create([alice.public_key], asset=driver.asset("a false address"))
    other = conditions.output(conditions.single(bob.public_key), [bob.public_key])
    draft["outputs"][0]["condition"]["uri"] = other["condition"]["uri"]
    with pytest.raises(driver.exceptions.BadRequest) as refused:
        driver.send(conditions.signed_by_one(with_id(draft), alice))
    assert "(ValidationError)" in refused.value.info["message"]
