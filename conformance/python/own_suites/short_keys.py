"""A pytest plugin that only watches: it notes which tests drew a public key of fewer than 43
characters, which the transaction schema does not admit (asset ledger 4.1)."""

import pytest

PUBLIC_KEY_CHARACTERS_MIN = 43


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef, request):
    value = yield
    key = getattr(value, "public_key", None)
    if isinstance(key, str) and len(key) < PUBLIC_KEY_CHARACTERS_MIN:
        request.node.user_properties.append(("short_key", request.node.nodeid))
    return value
