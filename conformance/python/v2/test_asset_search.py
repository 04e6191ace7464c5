"""Text search over asset data, which only drivers of version 2.0 offer (asset ledger 3.10)."""

import pytest


def test_assets_are_found_by_their_words(driver, alice):
    words = [f"Hello Zeppelin {n}!" for n in range(3)]
    texts = isinstance(driver.asset("")["data"], str)
    data = words if texts else [{"msg": each} for each in words]
    created = [driver.create(alice, asset={"data": each}) for each in data]
    found = driver.connection.assets.get(search="zeppelin")
    assert {each["id"]: each["data"] for each in found} == {
        each["id"]: each["asset"]["data"] for each in created
    }
    assert len(driver.connection.assets.get(search="zeppelin", limit=2)) == 2
    assert driver.connection.assets.get(search="zzznothing") == []
    with pytest.raises(driver.exceptions.BadRequest) as refused:
        driver.connection.assets.get(search="")
    assert refused.value.info == {"message": "text_search cannot be empty", "status": 400}
