"""Fixtures of every suite: one fresh node per file of tests, the driver of this environment."""

import pytest

from daybook_conformance.clients import installed
from daybook_conformance.node import Node, fresh_folder
from daybook_conformance.stream import Subscriber


@pytest.fixture(scope="module")
def node(request):
    driver = installed()
    name = request.module.__name__.rpartition(".")[2]
    with Node(fresh_folder(name), dialect=driver.dialect, software=driver.software) as node:
        yield node


@pytest.fixture
def driver(node):
    return installed()(node)


@pytest.fixture
def alice(driver):
    return driver.keypair()


@pytest.fixture
def bob(driver):
    return driver.keypair()


@pytest.fixture
def carol(driver):
    return driver.keypair()


@pytest.fixture
def follow(node):
    """Opens subscribers that are closed at the end of the test."""
    opened = []

    def open_stream(stream="valid_transactions", address=None):
        opened.append(Subscriber(address or node.stream_address(stream)))
        return opened[-1]

    yield open_stream
    for subscriber in opened:
        subscriber.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed and "node" in getattr(item, "funcargs", {}):
        report.sections.append(("what the node logged", item.funcargs["node"].log_tail()))
