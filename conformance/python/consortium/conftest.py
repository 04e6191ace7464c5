"""Five organisations in five processes on one node. The suite runs with `--confcutdir`, because the
drivers of the other suites are not installed beside it."""

import pytest

from daybook_conformance.node import Node, fresh_folder

from consortium.organisation import Organisation

NAMES = ["port-one", "rail", "port-two", "shipper", "customs"]


class Network:
    def __init__(self, folder):
        self.folder = folder
        self.members = [Organisation(folder, name) for name in NAMES]
        self.cards = ",".join(member.card for member in self.members)
        self.node = self.new_node()
        route = [member.did for member in self.members]
        for member in self.members:
            member.conduct(route=route, travel_days={did: 10 for did in route})
            member.start(self.node.http)

    def new_node(self, port=0):
        settings = {"DAYBOOK_CONSORTIUM_MEMBERS": self.cards, "DAYBOOK_TRACKER_ENABLED": "false"}
        return Node(self.folder / "node", listen=f"127.0.0.1:{port}", settings=settings)

    def stop(self):
        for member in self.members:
            member.stop()
        self.node.stop()


@pytest.fixture(scope="session")
def network():
    network = Network(fresh_folder("consortium"))
    yield network
    network.stop()


@pytest.fixture
def members(network):
    return network.members


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    network = getattr(item, "funcargs", {}).get("network")
    if report.failed and network:
        report.sections.append(("what the node logged", network.node.log_tail()))
        for member in network.members:
            report.sections.append((f"what {member.name} logged", member.log_tail()))
