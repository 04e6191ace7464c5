"""What commits is announced: every transaction once, in block order, readable when announced."""

TRANSACTIONS = 10


def test_everything_that_commits_is_announced_once_and_in_order(driver, follow, alice, bob):
    address = driver.connection.api_info()["streams"]
    subscriber = follow(address=address)
    created = [
        driver.signed_create(alice, asset=driver.asset(f"announced {n}"))
        for n in range(TRANSACTIONS)
    ]
    for transaction in created:
        driver.send(transaction, "async")
    subscriber.wait_for_frames(TRANSACTIONS)
    moved = driver.transfer([(created[0], 0)], [([bob.public_key], 1)], alice)
    frames = subscriber.wait_for_frames(TRANSACTIONS + 1)

    announced = [frame["transaction_id"] for frame in frames]
    assert sorted(announced[:-1]) == sorted(each["id"] for each in created)
    assert announced[-1] == moved["id"]
    heights = [frame["height"] for frame in frames]
    assert heights == sorted(heights)
    for frame in frames[:-1]:
        assert frame["asset_id"] == frame["transaction_id"]
        assert frame["asset_ids"] == [frame["transaction_id"]]
    assert frames[-1]["asset_id"] == created[0]["id"]

    order = []
    for height in sorted(set(heights)):
        order += driver.block(height)["transaction_ids"]
    assert announced == order


def test_an_announced_transaction_is_already_readable(driver, follow, alice):
    subscriber = follow()
    for n in range(TRANSACTIONS):
        sent = driver.signed_create(alice, asset=driver.asset(f"readable {n}"))
        driver.send(sent, "async")
        frame = subscriber.wait_for_frames(n + 1)[n]
        assert driver.retrieve(frame["transaction_id"]) == sent


def test_a_refused_transaction_is_not_announced(driver, follow, alice):
    created = driver.create(alice, asset=driver.asset("announced before"))
    subscriber = follow()
    try:
        driver.send(created)
    except driver.exceptions.BadRequest:
        pass
    after = driver.create(alice, asset=driver.asset("announced after"))
    frames = subscriber.wait_for_frames(1)
    assert [frame["transaction_id"] for frame in frames] == [after["id"]]
