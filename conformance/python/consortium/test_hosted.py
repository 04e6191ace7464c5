"""Members inside the node: one process for a small consortium."""

import uuid

from daybook_conformance.node import Node, fresh_folder

from consortium.organisation import Organisation, creation, entry, eventually


def test_a_node_hosts_several_members_and_the_user_decides_whose_gateway_it_is():
    folder = fresh_folder("consortium-hosted")
    data = folder / "node" / "data"
    members = [Organisation(folder, name, data_dir=data) for name in ["port", "rail"]]
    settings = {
        "DAYBOOK_CONSORTIUM_MEMBERS": ",".join(member.card for member in members),
        "DAYBOOK_TRACKER_ENABLED": "false",
    }
    name = f"HOSTED-{uuid.uuid4()}"
    with Node(folder / "node", settings=settings) as node:
        for member in members:
            member.url = node.http
        one, two = members
        document = one.upload("a.pdf", b"a document")
        events = one.command(creation(name))
        assert events[-1].get("done"), events
        assert events[-1]["ledger"]["id"] == 1
        assert two.command(entry(name))[-1].get("done")
        assert one.command(entry(name, document))[-1].get("done")
        assert one.get(document["url"].replace(node.http, "")).content == b"a document"
        # Who shares the ledger reads its documents; who does not, does not.
        assert two.get(document["url"].replace(node.http, "")).content == b"a document"
        private = one.upload("b.pdf", b"another")
        assert two.get(private["url"].replace(node.http, "")).status_code == 404
        eventually("all answer", lambda: one.get("/maintenance/check_health/").status_code == 200)
        assert two.get("/ledgers/").json()["count"] == 1
        assert one.get("/ledgers/", auth=("nobody", "password")).status_code == 401
        # The node's own doors are as they were.
        assert one.get("/api/v1/validators", auth=None).status_code == 200
    with Node(folder / "node", settings=settings) as node:
        for member in members:
            member.url = node.http
        assert one.ledger(name)["size"] == 3
        assert one.ledger(name)["root_hash"] == two.ledger(name)["root_hash"]
