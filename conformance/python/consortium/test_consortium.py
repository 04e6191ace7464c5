"""What organisations do with containers, over `requests` and `websocket-client`."""

import datetime
import hashlib
import ipaddress
import json
import random
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import websocket
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from consortium.organisation import ANSWER_SECONDS_MAX, PASSWORD, TYPES, creation, daybook, entry, eventually


def is_done(events):
    return events[-1].get("done") is True


def same_everywhere(members, name, size):
    """Waits until all members have the ledger's entries; their roots are one."""

    def have_it():
        copies = [member.ledger(name) for member in members]
        return all(copy and copy["size"] == size for copy in copies)

    eventually(f"{name} has {size} entries everywhere", have_it)
    assert len({member.ledger(name)["root_hash"] for member in members}) == 1


def test_an_it_system_brings_a_container_from_its_papers_to_every_members_list(members):
    one, two, *_ = members
    content = b"%PDF-1.4 a waybill"
    document = one.upload("накладная 118.PDF", content)
    assert document["md5"] == hashlib.md5(content).hexdigest()
    assert document["filename"] == "накладная 118.PDF"
    back = requests.get(document["url"], auth=one.user, timeout=60)
    assert back.content == content
    assert back.headers["X-Content-Type-Options"] == "nosniff"
    part = requests.get(document["url"], auth=one.user, headers={"Range": "bytes=0-3"}, timeout=60)
    assert (part.status_code, part.content) == (206, b"%PDF")

    name = f"CONT-{uuid.uuid4().hex[:8]}"
    events = one.command(creation(name))
    assert is_done(events), events
    values = [event["progress"] for event in events if "progress" in event]
    assert values == sorted(values) and values[0] == 0 and values[-1] == 100
    ledger_id = events[-1]["ledger"]["id"]
    assert events[-1]["ledger"]["name"] == name
    assert one.get(f"/ledgers/{ledger_id}/").json()["metadata"]["actor"] == {
        "label": "SELF", "did": one.did,
    }
    words = " ".join(event.get("message", "") for event in events)
    assert "5 of 5" in words and all(member.name in words for member in members)

    assert is_done(two.command(entry(name, doc_type="\u0421onnaissement")))
    issued = one.command(entry(name, document))
    assert is_done(issued), issued
    same_everywhere(members, name, 3)
    for member in members:
        mirrored = member.ledger(name)
        listed = member.get(f"/ledgers/{mirrored['id']}/transactions/").json()
        newest = listed["results"][0]
        assert newest["seq_no"] == newest["metadata"]["seqNo"] == 3
        assert newest["attachments"][0]["data"]["json"]["sha256"] == hashlib.sha256(content).hexdigest()
        assert newest["signer_label"] == "port-one Ltd."
        assert newest["signer_icon"] == "/static/logos/port-one.png"
        assert newest["status"] == "started"
        assert newest["txn"]["msg~sig"]["signer"] == one.verkey
        assert "txnMetadata" not in newest["txn"]
        assert listed["results"][1]["attachments"] == []
        assert listed["results"][1]["status"] == "in_way"
        meta = member.get(f"/ledgers/{mirrored['id']}/transactions/list_with_meta").json()
        assert [each["seq_no"] for each in meta["results"]] == [3, 2, 1]
        assert isinstance(meta["days_in_way"], int)
    # The document must be the one that was uploaded.
    wrong = one.command(entry(name, {**document, "md5": "0" * 32}))
    assert wrong[-1]["problem-code"] == "request_error"


def test_the_ledger_can_be_verified_by_anybody_from_its_export(network, members, tmp_path):
    one = members[0]
    name = f"EXPORT {uuid.uuid4()}"
    assert is_done(one.command(creation(name)))
    export = tmp_path / "ledger"
    daybook("ledger", "export", name, "--url", network.node.http, "--out", export)
    cards = [part for member in members for part in ("--card", member.card)]
    (report,) = daybook("ledger", "verify", export, *cards)
    assert report["root_hash"] == one.ledger(name)["root_hash"], report


def test_credentials_are_looked_at(members):
    one, two, *_ = members
    none = one.get("/ledgers/", auth=None)
    assert none.status_code == 401
    assert none.headers["WWW-Authenticate"] == 'Basic realm="api"'
    assert none.json() == {"detail": "Authentication credentials were not provided."}
    assert one.get("/ledgers/", auth=two.user).json() == {"detail": "Invalid username/password."}
    assert one.post("/upload", auth=None).status_code == 403
    missing = one.post("/upload", files={"other": ("x", b"x")})
    assert (missing.status_code, missing.json()) == (400, "Expected file value")
    for wrong in ["", "0" * 32, "=", two.token()]:
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            one.socket(wrong)
        assert refused.value.status_code == 403
    session = requests.Session()
    entered = session.post(
        one.url + "/auth/", data={"login": one.user[0], "password": PASSWORD}, timeout=60
    )
    assert entered.status_code == 200
    assert session.get(one.url + "/ledgers/", timeout=60).status_code == 200
    token = one.url + "/maintenance/allocate_token/"
    assert session.post(token, timeout=60).status_code == 403
    headers = {"X-CSRFToken": session.cookies["csrftoken"]}
    assert len(session.post(token, headers=headers, timeout=60).json()["token"]) == 32


def test_a_revoked_users_token_is_worth_nothing(members):
    one = members[0]
    daybook(
        "user", "add", "--data-dir", one.folder, "temp", "--password-file", "-", stdin="temporary\n"
    )
    token = one.get("/maintenance/allocate_token/", auth=("temp", "temporary")).json()["token"]
    one.socket(token).close()
    daybook("user", "revoke", "--data-dir", one.folder, "temp")
    with pytest.raises(websocket.WebSocketBadStatusException):
        one.socket(token)
    assert one.get("/ledgers/", auth=("temp", "temporary")).status_code == 401


@pytest.mark.parametrize("text", ["{", "5", "null", "[]", "{}", '"x"', '{"@type": "unknown"}'])
def test_what_is_no_request_gets_one_report_and_a_close(members, text):
    socket = members[0].socket()
    socket.send(text)
    report = json.loads(socket.recv())
    assert report["problem-code"] == "request_error" and report["explain"]
    opcode, data = socket.recv_data()
    assert (opcode, data[:2]) == (websocket.ABNF.OPCODE_CLOSE, (1000).to_bytes(2, "big"))


def test_one_request_is_one_transaction(members):
    one = members[0]
    name = f"ONCE-{uuid.uuid4()}"
    assert is_done(one.command(creation(name)))
    message = entry(name)
    # The first goes away before it hears anything.
    socket = one.socket()
    socket.send(json.dumps(message))
    socket.shutdown()
    with ThreadPoolExecutor() as threads:
        outcomes = list(threads.map(one.command, [message] * 4))
    assert all(is_done(events) for events in outcomes), outcomes
    operation = one.get(f"/operations/{message['@id']}/").json()
    assert operation["status"] == "done"
    same_everywhere(members, name, 2)


def test_two_leaders_at_the_same_instant_are_both_served(members):
    name = f"BUSY-{uuid.uuid4()}"
    assert is_done(members[0].command(creation(name)))
    rounds = 50

    def lead(member):
        return [is_done(member.command(entry(name))) for _ in range(rounds)]

    with ThreadPoolExecutor() as threads:
        outcomes = list(threads.map(lead, members[:2]))
    assert all(all(outcome) for outcome in outcomes), outcomes
    same_everywhere(members, name, 1 + 2 * rounds)


def test_several_ledgers_get_an_entry_all_or_none(members):
    names = [f"TRAIN-{uuid.uuid4()}" for _ in range(3)]
    for name in names:
        assert is_done(members[0].command(creation(name)))
    events = members[0].command(entry(names))
    assert is_done(events) and events[-1]["ledger"]["name"] == names
    failed = members[0].command(entry([*names, "NOWHERE"]))
    assert failed[-1]["problem-code"] == "request_processing_error"
    for name in names:
        same_everywhere(members, name, 2)


def test_plan_documents_reach_every_member(members):
    message = {
        "@type": TYPES + "gu-11", "@id": str(uuid.uuid4()), "no": "GU-5531", "date": "02/03/2026",
        "cargo_name": "Groupage", "depart_station": "Almaty-1", "arrival_station": "Poti",
        "month": "March", "year": "2026", "tonnage": "22", "shipper": "Steppe Trade LLP", "decade": "2",
    }
    before = [member.get("/gu-11/").json()["count"] for member in members]
    events = members[0].command(message)
    assert events[0]["progress"] == 100 and events[0]["done"] is True and len(events) == 1
    eventually(
        "all have it",
        lambda: [member.get("/gu-11/").json()["count"] for member in members]
        == [count + 1 for count in before],
    )
    assert members[1].get("/gu-11/").json()["results"][0]["decade"] == "2"


def certificate(folder):
    """A certificate for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "member")])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    chain, secret = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(chain), str(secret)


def test_a_plan_document_goes_over_tls_as_the_published_client_sends_it(network, members, tmp_path):
    one = members[0]
    chain, key = certificate(tmp_path)
    one.stop()
    one.start(network.node.http, "--tls-cert", chain, "--tls-key", key)
    try:
        assert one.url.startswith("https://")
        before = [member.get("/gu-11/", verify=chain).json()["count"] for member in members]
        token = one.get("/maintenance/allocate_token/", verify=chain).json()["token"]
        uploaded = one.post("/upload", files={"file": ("plan.pdf", b"plan")}, verify=chain).json()
        assert uploaded["url"].startswith("https://")
        socket = websocket.create_connection(
            one.url.replace("https://", "wss://") + f"/transactions?token={token}",
            timeout=ANSWER_SECONDS_MAX,
            sslopt={"ca_certs": chain},
        )
        attachment = {
            "@id": "document-0", "mime_type": "application/pdf", "filename": uploaded["filename"],
            "data": {"json": {"url": uploaded["url"], "md5": uploaded["md5"]}},
        }
        socket.send(
            json.dumps({
                "@type": TYPES + "gu-11", "@id": uuid.uuid4().hex, "no": "1", "date": "02/03/2026",
                "cargo_name": "x", "depart_station": "a", "arrival_station": "b", "month": "March",
                "year": "2026", "tonnage": "22", "shipper": "s", "decade": "2", "~attach": [attachment],
            })
        )
        assert json.loads(socket.recv())["progress"] == 100
        assert socket.recv_data()[0] == websocket.ABNF.OPCODE_CLOSE
        eventually(
            "the count rises by one everywhere",
            lambda: [member.get("/gu-11/", verify=chain).json()["count"] for member in members]
            == [count + 1 for count in before],
        )
    finally:
        one.stop()
        one.start(network.node.http)


def test_unanimity_names_who_is_missing_and_a_quorum_goes_on_without(network, members):
    one, *_, last = members
    unanimous, quorum = f"ALL-{uuid.uuid4()}", f"QUORUM-{uuid.uuid4()}"
    assert is_done(one.command(creation(unanimous)))
    assert is_done(one.command(creation(quorum, policy={"at_least": 3})))
    eventually("all answer", lambda: one.get("/maintenance/check_health/").status_code == 200)
    last.stop()
    events = one.command(entry(unanimous, time_to_live=10))
    report = events[-1]
    assert report["problem-code"] == "request_processing_error", events
    assert report["participants"] == [last.did]
    assert last.name in report["explain"] and "expired" in report["explain"]
    assert is_done(one.command(entry(quorum)))
    eventually("it is missed", lambda: one.get("/maintenance/check_health/").status_code == 503)
    ill = one.get("/maintenance/check_health/").json()
    assert ill["success"] is False and last.name in ill["message"]
    assert ill["participants"][last.did]["ok"] is False
    assert ill["participants"][last.did]["last_heard"]
    same_everywhere(members[:-1], quorum, 2)
    last.start(network.node.http)
    eventually("it answers again", lambda: one.get("/maintenance/check_health/").status_code == 200)
    assert is_done(one.command(entry(unanimous)))
    same_everywhere(members, unanimous, 2)
    same_everywhere(members, quorum, 2)


def test_a_member_killed_in_the_middle_of_its_operation_takes_it_up_again(network, members):
    one = members[0]
    for _ in range(5):
        name = f"KILLED-{uuid.uuid4()}"
        message = creation(name)
        socket = one.socket()
        socket.send(json.dumps(message))
        # The request was begun as soon as anything is said.
        socket.recv()
        one.kill()
        one.start(network.node.http)
        events = one.command(message)
        assert is_done(events), events
        same_everywhere(members, name, 1)


def test_whoever_is_killed_at_whatever_moment_a_proposal_is_committed_everywhere_or_nowhere(
    network, members
):
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    proposer, endorser, *_ = members
    name = f"CHAOS-{uuid.uuid4()}"
    assert is_done(proposer.command(creation(name)))
    size = 1
    for _ in range(10):
        message = entry(name, time_to_live=120)
        socket = proposer.socket()
        socket.send(json.dumps(message))
        # After so many of the events that tell how far it is.
        for _ in range(chance.randrange(5)):
            socket.recv()
        victim = chance.choice(["proposer", "endorser", "node"])
        if victim == "node":
            port = network.node.port
            network.node.kill()
            network.node = network.new_node(port)
        else:
            member = {"proposer": proposer, "endorser": endorser}[victim]
            member.kill()
            member.start(network.node.http)
        # The same request again finds what became of it, or makes it.
        events = proposer.command(message)
        assert is_done(events), (seed, victim, events)
        size += 1
        same_everywhere(members, name, size)


def test_a_node_killed_under_its_members_loses_nothing(network, members):
    one = members[0]
    name = f"NODE-{uuid.uuid4()}"
    assert is_done(one.command(creation(name)))
    port = network.node.port
    network.node.kill()
    socket = one.socket()
    message = entry(name, time_to_live=120)
    socket.send(json.dumps(message))
    network.node = network.new_node(port)
    events = one.command(message)
    assert is_done(events), events
    same_everywhere(members, name, 2)


def test_a_mirror_that_is_gone_is_made_again_the_same(network, members):
    member = members[1]
    before = member.get("/ledgers/?page=last").json()
    member.stop()
    (member.folder / "members" / member.did / "mirror.redb").unlink()
    member.start(network.node.http)
    eventually(
        "it is whole", lambda: member.get("/ledgers/").json()["count"] == before["count"]
    )
    after = member.get("/ledgers/?page=last").json()
    assert after["results"] == before["results"]
