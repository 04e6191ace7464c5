"""Fixtures of the tracker's suite. It runs with `--confcutdir`, because the drivers of the other suites
are not installed beside it."""

import pytest

from daybook_conformance.node import Node, fresh_folder


@pytest.fixture(scope="module")
def node():
    with Node(fresh_folder("tracker-python")) as node:
        yield node


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed and "node" in getattr(item, "funcargs", {}):
        report.sections.append(("what the node logged", item.funcargs["node"].log_tail()))
