"""An organisation: a member's process beside the node, and the IT system that drives it."""

import json
import os
import selectors
import signal
import ssl
import subprocess
import time
import uuid
from pathlib import Path

import requests
import websocket

TYPES = "https://github.com/Sirius-social/TMTM/tree/master/transactions/1.0/"
PASSWORD = "correct horse battery"
# A member answers within milliseconds; the bounds only turn a hang into a failure on a busy machine.
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
ANSWER_SECONDS_MAX = 120


def eventually(what, holds):
    """Waits until it holds."""
    end = time.monotonic() + ANSWER_SECONDS_MAX
    while not holds():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.05)


def daybook(*arguments, stdin=None, cwd=None):
    """Runs a command and gives the JSON lines that it prints."""
    done = subprocess.run(
        [os.environ["CONFORMANCE_BINARY"], "--json", *map(str, arguments)],
        input=stdin,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=ANSWER_SECONDS_MAX,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


class Organisation:
    """A member with one user. Its process can be stopped, killed and started again."""

    def __init__(self, folder, name, data_dir=None):
        self.folder = Path(data_dir or Path(folder) / name)
        self.name = name
        self.user = (f"it-{name}", PASSWORD)
        self.log_path = Path(folder) / f"{name}.log"
        self.process = None
        self.killed = False
        (made,) = daybook(
            "member", "init", "--data-dir", self.folder, "--label", name,
            "--organization", f"{name} Ltd.", "--icon", f"/static/logos/{name}.png",
        )
        self.did, self.verkey, self.card = made["did"], made["verkey"], made["card"]
        daybook(
            "user", "add", "--data-dir", self.folder, "--member", self.did, self.user[0], "--admin",
            "--password-file", "-",
            stdin=PASSWORD + "\n",
        )

    def conduct(self, **settings):
        path = self.folder / "members" / self.did / "member.json"
        path.write_text(json.dumps(settings))

    def start(self, node, *arguments):
        command = [
            os.environ["CONFORMANCE_BINARY"], "--json", "member", "run",
            "--data-dir", str(self.folder), "--url", node, "--listen", "127.0.0.1:0", *arguments,
        ]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DAYBOOK_")}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=inherited, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            ready = selector.select(START_SECONDS_MAX)
        line = self.process.stdout.readline() if ready else b""
        assert line, f"{self.name} did not start:\n{self.log_tail()}"
        self.url = json.loads(line)["http"].rstrip("/")

    def log_tail(self):
        return self.log_path.read_bytes()[-8_000:].decode(errors="replace")

    def kill(self):
        self.process.kill()
        self.process.wait(STOP_SECONDS_MAX)
        self.process.stdout.close()
        self.process = None

    def stop(self):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECONDS_MAX)
        self.process.stdout.close()
        self.process = None
        log = self.log_path.read_text(errors="replace")
        assert code == 0 and "panicked at" not in log, f"{self.name} ended with {code}:\n{self.log_tail()}"
        # What opens something never stands in the log.
        assert PASSWORD not in log and "token=" not in log

    # The IT system.

    def ask(self, method, path, **options):
        options.setdefault("auth", self.user)
        return requests.request(
            method, self.url + path, timeout=ANSWER_SECONDS_MAX, allow_redirects=False, **options
        )

    def get(self, path, **options):
        return self.ask("GET", path, **options)

    def post(self, path, **options):
        return self.ask("POST", path, **options)

    def token(self):
        return self.get("/maintenance/allocate_token/").json()["token"]

    def socket(self, token=None):
        url = self.url.replace("http", "ws", 1) + f"/transactions?token={self.token() if token is None else token}"
        return websocket.create_connection(
            url, timeout=ANSWER_SECONDS_MAX, sslopt={"cert_reqs": ssl.CERT_NONE}
        )

    def command(self, message):
        """Sends one request over a socket of its own; gives all events. The server closes with 1000."""
        socket = self.socket()
        socket.send(json.dumps(message))
        events = []
        while True:
            opcode, data = socket.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                assert int.from_bytes(data[:2], "big") == 1000, data
                return events
            events.append(json.loads(data))

    def upload(self, name, content):
        reply = self.post("/upload", files={"file": (name, content)})
        assert reply.status_code == 200, reply.text
        return reply.json()

    def ledger(self, name):
        page = "/ledgers/"
        while page:
            answer = self.get(page).json()
            for ledger in answer["results"]:
                if ledger["name"] == name:
                    return self.get(f"/ledgers/{ledger['id']}/").json()
            page = answer["next"] and answer["next"].replace(self.url, "")
        return None


def entry(ledger, document=None, **others):
    transaction = {
        "@type": TYPES + "issue-transaction",
        "@id": str(uuid.uuid4()),
        "no": "WB-2026-118",
        "date": "01.03.26",
        "cargo": "Медная катанка",
        "departure_station": "Balkhash",
        "arrival_station": "Aktau-Port",
        "doc_type": "WayBill",
        "ledger": {"name": ledger},
        "waybill": {"no": "118-K", "wagon_no": "52310987"},
        **others,
    }
    if document:
        transaction["~attach"] = [
            {
                "@id": "document-0",
                "mime_type": "application/pdf",
                "filename": document["filename"],
                "data": {"json": {"url": document["url"], "md5": document["md5"]}},
            }
        ]
    return transaction


def creation(name, **others):
    return {
        "@type": TYPES + "create-ledger",
        "@id": str(uuid.uuid4()),
        "name": name,
        "time_to_live": 60,
        "genesis": [entry(name)],
        **others,
    }
