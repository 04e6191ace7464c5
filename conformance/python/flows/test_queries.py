"""Discovery, outputs, blocks and search, as the drivers ask for them."""

import pytest


def test_the_node_introduces_itself(driver, node):
    about = driver.connection.info()
    assert about["software"] == driver.software
    assert {"api", "docs", "software", "version"} <= set(about)
    api = driver.connection.api_info()
    assert (api["assets"], api["outputs"], api["transactions"]) == (
        "/assets/", "/outputs/", "/transactions/",
    )
    assert api["streams"] == node.stream_address("valid_transactions")
    assert about["api"]["v1"]["transactions"] == "/api/v1/transactions/"


def test_outputs_are_told_apart_by_being_spent(driver, alice, bob):
    created = driver.create(
        alice, [([alice.public_key], 1), ([alice.public_key], 2)], driver.asset("two outputs")
    )
    first, second = (created["id"], 0), (created["id"], 1)
    assert driver.outputs(alice) == driver.outputs(alice, spent=False) == [first, second]
    assert driver.outputs(alice, spent=True) == []
    moved = driver.transfer([(created, 0)], [([bob.public_key], 1)], alice)
    assert driver.outputs(alice) == [first, second]
    assert driver.outputs(alice, spent=True) == [first]
    assert driver.outputs(alice, spent=False) == [second]
    assert driver.outputs(bob) == [(moved["id"], 0)]


def test_a_key_that_owns_nothing_has_no_outputs(driver, carol):
    assert driver.outputs(carol) == driver.outputs(carol, spent=True) == []


def test_a_block_is_found_by_transaction_and_by_height(driver, alice):
    created = driver.create(alice, asset=driver.asset("in a block"))
    height = driver.height_of(created["id"])
    block = driver.block(height)
    assert block["height"] == height >= 1
    assert created["id"] in block["transaction_ids"]
    assert created in block["transactions"]
    assert driver.block(0)["height"] == 0


def test_an_unknown_transaction_is_in_no_block(driver):
    if driver.dialect == "v2":
        with pytest.raises(driver.exceptions.NotFoundError):
            driver.connection.blocks.get(txid="0" * 64)
    else:
        assert driver.connection.blocks.get(txid="0" * 64) is None


def test_metadata_is_found_by_its_words(driver, alice):
    remark = driver.metadata("wheelbarrow")
    word = remark if isinstance(remark, str) else remark["remark"]
    first = driver.create(alice, asset=driver.asset("search 1"), metadata=remark)
    second = driver.create(alice, asset=driver.asset("search 2"), metadata=remark)
    found = driver.connection.metadata.get(search=word)
    expected = [{"id": each["id"], "metadata": remark} for each in (first, second)]
    assert sorted(found, key=lambda each: each["id"]) == sorted(expected, key=lambda e: e["id"])
    assert len(driver.connection.metadata.get(search=word, limit=1)) == 1
    assert driver.connection.metadata.get(search="zzznothing") == []
