"""python-socketio on a real node's bus: handshake, calls, groups and errors over every transport.

The same file runs with 5.18.1 (Engine.IO 4) and 4.6.1 (Engine.IO 3); the items are those of the service
bus protocol, section 16.
"""

import json
import os
import re
import selectors
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
import uuid
from pathlib import Path

import pytest
import socketio

NAMESPACE = "/communication"
# A node answers within milliseconds; the bounds only turn a hang into a failure on a busy machine.
START_SECONDS_MAX = 60
HEAR_SECONDS_MAX = 20
TRANSPORTS = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": ["polling", "websocket"]}


class Broker:
    def __init__(self):
        parent = os.environ.get("CONFORMANCE_DATA") or tempfile.gettempdir()
        Path(parent).mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix="bus-", dir=parent)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DAYBOOK_")}
        self.log = open(Path(folder) / "node.log", "wb+")
        self.process = subprocess.Popen(
            [
                os.environ["CONFORMANCE_BINARY"], "start", "--dev", "--json",
                "--data-dir", str(Path(folder) / "data"),
                "--listen", "127.0.0.1:0", "--streams-listen", "127.0.0.1:0", "--bus-listen", "127.0.0.1:0",
            ],
            env={**inherited, "DAYBOOK_LOG_LEVEL": "debug"}, cwd=folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=self.log,
        )
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(START_SECONDS_MAX), "the node did not start"
        listening = json.loads(self.process.stdout.readline())
        self.url = listening["bus"].rstrip("/")
        self.api = listening["http"].rstrip("/")
        self.key = listening["bus_key"]

    def services(self):
        with urllib.request.urlopen(f"{self.url}/services", timeout=HEAR_SECONDS_MAX) as answer:
            return json.load(answer)["result"]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(START_SECONDS_MAX)
        self.log.seek(0)
        log = self.log.read().decode(errors="replace")
        assert code == 0, log
        assert "panicked at" not in log, log
        assert self.key not in log


class Service:
    """A client in the namespace and everything that it has heard."""

    def __init__(self, broker, transports, work, url=None):
        self.broker = broker
        self.heard = []
        self.changed = threading.Condition()
        self.client = socketio.Client(reconnection=False)
        for name in ("shake_who", "shake_id", "shake_online", "shake_error", "api:response",
                     "api:request:error", "api:response:error", "_service:error", work):
            self.client.on(name, self._hearing(name), namespace=NAMESPACE)
        self.client.on("connect", self._hearing("(connect)"), namespace=NAMESPACE)
        self.client.on("disconnect", self._hearing("(disconnect)"), namespace=NAMESPACE)
        arguments = {} if socketio_version() < 5 else {"wait_timeout": HEAR_SECONDS_MAX}
        self.client.connect(url or broker.url, transports=transports, namespaces=[NAMESPACE], **arguments)

    def _hearing(self, name):
        def hear(*arguments):
            with self.changed:
                self.heard.append((name, arguments, time.monotonic()))
                self.changed.notify_all()
        return hear

    def hears(self, name):
        with self.changed:
            def found():
                return next((h for h in self.heard if h[0] == name), None)
            assert self.changed.wait_for(found, HEAR_SECONDS_MAX), f"no {name}, only {self.heard}"
            event = found()
            self.heard.remove(event)
            return event

    def emit(self, name, body=None):
        self.client.emit(name, body, namespace=NAMESPACE)

    def join(self, name, **more):
        self.hears("shake_who")
        self.emit("shake_i_am", {"name": name, "key": self.broker.key, "features": ["subscribe"], **more})
        self.id = self.hears("shake_id")[1][0]["id"]
        self.emit("shake_ready", {"id": self.id})
        assert self.hears("shake_online")[1] == ()
        return self

    def subscribe(self, **body):
        answer = self.client.call("_service:api:request:subscribe", body, namespace=NAMESPACE, timeout=HEAR_SECONDS_MAX)
        assert answer == {"ok": True, "name": body["name"]}
        return self

    def request(self, name, request_id, **more):
        self.emit("api:request", {"name": name, "request_id": request_id, "sender_id": self.id, **more})

    def answer(self, request, data):
        self.emit("api:response", {**request, "recipient_id": self.id, "data": data})

    def close(self):
        self.client.disconnect()


def socketio_version():
    from importlib.metadata import version
    return int(version("python-socketio").split(".")[0])


@pytest.fixture(scope="module")
def broker():
    broker = Broker()
    yield broker
    broker.stop()


@pytest.fixture(params=TRANSPORTS, ids=list(TRANSPORTS))
def visit(request, broker):
    services = []

    def visit(url=None):
        service = Service(broker, TRANSPORTS[request.param], visit.work, url)
        services.append(service)
        return service

    # A name of its own: a client that closes may go without a word, and is subscribed until its ping is missed.
    visit.work = f"py.work.{uuid.uuid4().hex}"
    visit.way = request.param
    yield visit
    for service in services:
        service.close()


def error(event):
    return event[1][0]["error"]


def test_1_a_client_is_asked_who_it_is_at_once_and_without_any_argument(visit):
    client = visit()
    connected, who = client.hears("(connect)"), client.hears("shake_who")
    assert who[1] == ()
    assert who[2] - connected[2] < 0.2


def test_2_a_silent_client_is_told_408_after_two_seconds(visit):
    began = time.monotonic()
    silent = visit()
    asked = silent.hears("shake_who")[2]
    late = silent.hears("shake_error")
    assert (error(late)["code"], error(late)["status"]) == ("request_timeout", 408)
    # Not before: its time begins behind this test's. A busy machine may add to it.
    assert late[2] - began > 1.98
    assert late[2] - asked < 4
    silent.hears("(disconnect)")


@pytest.mark.parametrize("body, code", [
    (None, "invalid_name"), ({}, "invalid_name"), ({"name": ""}, "invalid_name"),
    ({"name": "meter"}, "invalid_key"), ({"name": "meter", "key": ""}, "invalid_key"),
    ({"name": "meter", "key": "wrong"}, "invalid_key"),
])
def test_3_and_4_a_bad_introduction_is_told_before_the_connection_ends(visit, body, code):
    bad = visit()
    bad.hears("shake_who")
    bad.emit("shake_i_am", body)
    told = error(bad.hears("shake_error"))
    assert (told["code"], told["status"]) == (code, 400)
    if code == "invalid_key":
        assert told["legacy_code"] == "invalid_secret_key"
    bad.hears("(disconnect)")


def test_5_and_7_a_good_introduction_makes_a_service_online(visit):
    meter = visit()
    meter.hears("shake_who")
    meter.emit("shake_i_am", {"name": "meter", "key": meter.broker.key})
    meter.id = meter.hears("shake_id")[1][0]["id"]
    assert re.fullmatch(r"meter\.\d{13}\.[0-9a-f]{32}", meter.id)
    assert meter.id not in meter.broker.services()
    meter.emit("shake_ready", {"id": meter.id})
    assert meter.hears("shake_online")[1] == ()
    assert meter.broker.services()[meter.id]["state"] == "online"


@pytest.mark.parametrize("body, code", [(None, "no_id"), ({}, "no_id"), ({"id": "x.1.2"}, "invalid_id")])
def test_6_a_bad_ready_is_refused(visit, body, code):
    bad = visit()
    bad.hears("shake_who")
    bad.emit("shake_i_am", {"name": "meter", "key": bad.broker.key})
    bad.hears("shake_id")
    bad.emit("shake_ready", body)
    assert error(bad.hears("shake_error"))["code"] == code
    bad.hears("(disconnect)")


def test_6_a_ready_before_the_introduction_is_refused(visit):
    bad = visit()
    bad.hears("shake_who")
    bad.emit("shake_ready", {"id": "x.1.2"})
    assert error(bad.hears("shake_error"))["code"] == "invalid_id"
    bad.hears("(disconnect)")


def test_10_and_11_a_request_and_its_answer_keep_their_fields(visit):
    meter, grid = visit().join("meter"), visit().join("grid").subscribe(name=visit.work)
    data = {"zone": "nörth", "list": [1, None, {"a": []}], "n": 1.5}
    meter.request(visit.work, "r10", data=data, unknown={"b": True}, delivery="one")
    request = grid.hears(visit.work)[1][0]
    assert request == {"name": visit.work, "request_id": "r10", "sender_id": meter.id, "data": data,
                       "unknown": {"b": True}, "delivery": "one"}
    grid.answer(request, {"kw": 41.5})
    answer = meter.hears("api:response")[1][0]
    assert (answer["data"], answer["recipient_id"]) == ({"kw": 41.5}, grid.id)


def test_12_an_error_arrives_with_all_five_members(visit):
    meter, grid = visit().join("meter"), visit().join("grid").subscribe(name=visit.work)
    meter.request(visit.work, "r12", delivery="one")
    request = grid.hears(visit.work)[1][0]
    told = {"message": "no", "code": "not_found", "status": 404, "entity": "grid", "list": [{"message": "m"}]}
    grid.emit("api:response", {**request, "recipient_id": grid.id, "error": told})
    assert error(meter.hears("api:response")) == told


def test_16_a_group_shares_the_work(visit):
    meter = visit().join("meter")
    workers = [visit().join("grid").subscribe(name=visit.work, queue="w") for _ in range(3)]
    for n in range(30):
        meter.request(visit.work, f"r16-{n}", reply="none")
    deadline = time.monotonic() + HEAR_SECONDS_MAX
    counts = []
    while sum(counts) < 30 and time.monotonic() < deadline:
        counts = [sum(h[0] == visit.work for h in worker.heard) for worker in workers]
        time.sleep(0.01)
    assert sorted(counts) == [10, 10, 10]


def test_18_nobody_listening_is_told_at_once(visit):
    meter = visit().join("meter")
    meter.request("nobody", "r18")
    told = error(meter.hears("api:response"))
    assert (told["code"], told["status"]) == ("no_responders", 503)


def test_19_a_deadline_is_kept(visit):
    meter = visit().join("meter")
    visit().join("grid").subscribe(name=visit.work)
    began = time.monotonic()
    meter.request(visit.work, "r19", timeout_ms=200, delivery="one")
    assert error(meter.hears("api:response"))["code"] == "timeout"
    assert 0.15 < time.monotonic() - began < 1


def test_22_reserved_names_are_refused(visit):
    meter = visit().join("meter")
    meter.request("shake_error", "r22")
    assert error(meter.hears("api:request:error"))["code"] == "reserved_name"


def test_27_malformed_payloads_end_in_an_error_or_a_disconnect(visit):
    deep = []
    for _ in range(200):
        deep = [deep]
    payloads = [None, 0, -1.5e300, True, "", "x", [], [None], {}, {"name": None}, {"name": {}}, {"name": [], "id": []},
                {"request_id": 7, "sender_id": False, "name": 0}, {"name": "*.>.x", "queue": 3}, {"error": {"list": 7}},
                {"delivery_id": "--"}, {"name": 7, "key": {}}, {"id": 9}, deep, "x" * (1 << 20)]
    assert len(payloads) == 20
    for event in ("api:request", "api:response", "_service:api:request:subscribe"):
        clumsy = visit().join("clumsy")
        wrong = {"api:request": "api:request:error", "api:response": "api:response:error"}.get(event, "_service:error")
        for payload in payloads:
            clumsy.emit(event, payload)
            clumsy.hears(wrong)
    for event in ("shake_i_am", "shake_ready"):
        for payload in payloads:
            clumsy = visit()
            clumsy.hears("shake_who")
            clumsy.emit(event, payload)
            assert error(clumsy.hears("shake_error"))["status"] in (400, 413)
            clumsy.hears("(disconnect)")
    meter = visit().join("meter")
    meter.request("nobody", "r27")
    assert error(meter.hears("api:response"))["code"] == "no_responders"


def test_the_main_listener_answers_the_same_bus(visit, broker):
    outer = visit(broker.api).join("outer").subscribe(name=visit.work)
    inner = visit().join("inner").subscribe(name=f"{visit.work}.back")
    inner.request(visit.work, "out", data={"n": 1.5}, delivery="one")
    outer.answer(outer.hears(visit.work)[1][0], "from outside")
    assert inner.hears("api:response")[1][0]["data"] == "from outside"
    outer.client.call("api:request", {"name": f"{visit.work}.back", "request_id": "in", "sender_id": outer.id,
                                      "reply": "none"}, namespace=NAMESPACE, timeout=HEAR_SECONDS_MAX)
    outer.request("nobody", "lost")
    assert error(outer.hears("api:response"))["code"] == "no_responders"
    assert broker.services()[outer.id]["state"] == "online"
    assert outer.client.transport() == ("polling" if visit.way == "polling" else "websocket")
