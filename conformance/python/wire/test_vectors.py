"""The recorded transactions, posted in order to one ledger that starts empty."""

import sys
from pathlib import Path

import pytest
import requests

sys.path.insert(0, str(Path(__file__).parent))
import vectors  # noqa: E402

# Made by a client although no server may accept them; being refused, they consume nothing.
REFUSED = {
    "12-transfer-to-nested-threshold-rejected": "",
    "37-js-create-noncanonical-rejected": "(InvalidHash)",
}
# Elections, their votes, and the delegation of a vote.
ELECTIONS = {name for name, _ in vectors.transactions() if "21" <= name[:2] <= "26"}


@pytest.mark.parametrize(
    "name, vector", [pytest.param(*pair, id=pair[0]) for pair in vectors.transactions()]
)
def test_a_recorded_transaction_is_answered_as_recorded(post, get, name, vector):
    transaction = vector["transaction"]
    answer = post(transaction)
    if name in REFUSED or name in ELECTIONS:
        assert answer.status_code == 400, answer.text
        assert answer.reason == "BAD REQUEST"
        assert REFUSED.get(name, "") in answer.json()["message"]
        assert get(f"/transactions/{transaction['id']}").status_code == 404
        return
    assert answer.status_code == 202, answer.text
    assert answer.reason == "ACCEPTED"
    assert answer.json() == transaction
    assert get(f"/transactions/{transaction['id']}").json() == transaction


def test_afterwards_every_output_is_spent_exactly_where_a_recorded_input_spends_it(get):
    accepted = {
        vector["transaction"]["id"]: vector
        for name, vector in vectors.transactions()
        if name not in REFUSED and name not in ELECTIONS
    }
    spent = {tuple(link) for vector in accepted.values() for link in vector["spends"]}
    owners = {}
    for identity, vector in accepted.items():
        for index, output in enumerate(vector["transaction"]["outputs"]):
            for key in output["public_keys"]:
                owners.setdefault(key, set()).add((identity, index))
    for key, expected in owners.items():
        for flag, wanted in (
            ("", expected),
            ("true", expected & spent),
            ("false", expected - spent),
        ):
            parameters = {"public_key": key} | ({"spent": flag} if flag else {})
            found = get("/outputs", **parameters).json()
            assert {(o["transaction_id"], o["output_index"]) for o in found} == wanted
            assert len(found) == len(wanted)


def test_the_recorded_transactions_are_in_blocks_in_the_order_of_posting(node, get):
    accepted = [
        vector["transaction"]["id"]
        for name, vector in vectors.transactions()
        if name not in REFUSED and name not in ELECTIONS
    ]
    latest = get("/blocks/latest").json()
    found = []
    for height in range(1, latest["height"] + 1):
        found += get(f"/blocks/{height}").json()["transaction_ids"]
    # The node made its tracker's token before it served.
    assert [each for each in found if each in accepted] == accepted
    assert requests.get(f"{node.api}/blocks/{latest['height']}/").json()["height"] == latest["height"]
