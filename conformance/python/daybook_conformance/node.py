"""One real node on ports of its own, with its data in a folder of its own."""

import json
import os
import selectors
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

# A node answers within milliseconds; the bounds only turn a hang into a failure on a busy machine.
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
LOG_TAIL_BYTES = 8_000


class Node:
    """Starts `daybook start` and stops it again. What it logs is kept beside its data."""

    def __init__(
        self,
        folder,
        *,
        dialect="classic",
        software="Planetmint",
        listen="127.0.0.1:0",
        settings=None,
    ):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log_path = self.folder / "node.log"
        self.killed = False
        command = [
            os.environ["CONFORMANCE_BINARY"],
            "start",
            "--data-dir", str(self.folder / "data"),
            "--listen", listen,
            "--streams-listen", "127.0.0.1:0", "--bus-listen", "127.0.0.1:0",
            "--json",
        ]
        # Settings of the machine that runs the tests must not reach the node.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DAYBOOK_")}
        environment = {
            **inherited,
            "DAYBOOK_DIALECT": dialect,
            "DAYBOOK_ADVERTISED_SOFTWARE": software,
            "DAYBOOK_ADVERTISED_HOST": "127.0.0.1",
            **(settings or {}),
        }
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        listening = json.loads(self._first_line())
        assert listening["event"] == "listening", listening
        self.http = listening["http"].rstrip("/")
        self.streams = listening["streams"].rstrip("/")
        self.api = self.http + "/api/v1"
        self.host = urlsplit(self.http).hostname
        self.port = urlsplit(self.http).port

    def _first_line(self):
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            ready = selector.select(START_SECONDS_MAX)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.process.kill()
            code = self.process.wait()
            raise RuntimeError(f"the node did not start (exit code {code}):\n{self.log_tail()}")
        return line

    def stream_address(self, stream):
        return f"{self.streams}/api/v1/streams/{stream}"

    def log_tail(self):
        return self.log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")

    def kill(self):
        """Ends the node without a word, as a loss of power would end it."""
        self.killed = True
        self.process.kill()
        self.process.wait(STOP_SECONDS_MAX)

    def stop(self):
        """A node that was asked to stop must do so in order, and must not have panicked before."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the node ignored SIGTERM:\n{self.log_tail()}") from None
        finally:
            self.process.stdout.close()
        assert self.killed or code == 0, f"the node ended with {code}:\n{self.log_tail()}"
        assert "panicked at" not in self.log_path.read_text(errors="replace"), self.log_tail()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def fresh_folder(name):
    """A new folder under the one that the runner names, so that a failed run can be looked at."""
    parent = Path(os.environ.get("CONFORMANCE_DATA") or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
