"""Look-ups by content identifier (asset ledger 3.11), with the doubled slash this driver sends."""

import requests

from daybook_conformance.clients import content_identifier


def test_assets_are_found_by_content_identifier(driver, alice):
    cid = content_identifier("a treaty")
    for n in range(2):
        driver.create(alice, asset=[{"data": cid}], metadata=driver.metadata(f"copy {n}"))
    assert driver.connection.assets.get(cid=cid) == [{"data": cid}, {"data": cid}]
    assert driver.connection.assets.get(cid=cid, limit=1) == [{"data": cid}]
    assert driver.connection.assets.get(cid=content_identifier("no such treaty")) == []


def test_metadata_is_found_by_content_identifier(driver, node, alice):
    cid = content_identifier("a remark")
    driver.create(alice, asset=driver.asset("remarked"), metadata=cid)
    assert requests.get(f"{node.api}/metadata/{cid}").json() == [cid]
    assert requests.get(f"{node.api}/metadata/{content_identifier('silence')}").json() == []


def test_several_assets_are_asked_for_at_once(driver, alice):
    created = [driver.create(alice, asset=driver.asset(f"asked {n}")) for n in range(2)]
    found = driver.connection.transactions.get(asset_ids=[each["id"] for each in created])
    assert found == created
