"""The commands of the documentation, run as they stand there."""

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

from daybook_conformance.node import fresh_folder

PAGE = Path(__file__).resolve().parents[3] / "docs/protocols/consortium-ledgers.md"
SECONDS_MAX = 120


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_the_way_from_nothing_to_a_shared_container_is_as_it_is_written():
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert len(blocks) >= 7
    script = "\n".join(blocks)
    # Other programs may have the usual ports.
    ports = free_ports(3)
    for usual, free in zip(["9984", "8001", "8002"], ports):
        script = script.replace(usual, str(free))
    folder = fresh_folder("consortium-documentation")
    tools = folder / "bin"
    tools.mkdir()
    (tools / "daybook").symlink_to(os.environ["CONFORMANCE_BINARY"])
    python = Path(os.sys.executable).parent
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DAYBOOK_")}
    environment |= {
        "PATH": f"{tools}:{python}:{environment['PATH']}",
        "DAYBOOK_LISTEN": f"127.0.0.1:{ports[0]}",
        "DAYBOOK_STREAMS_LISTEN": "off",
        "DAYBOOK_BUS_LISTEN": "off",
    }
    # What runs in the background ends with the script.
    head = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n"
    log = folder / "log"
    with log.open("wb") as out:
        running = subprocess.Popen(
            ["bash", "-c", head + script],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        code = running.wait(SECONDS_MAX)
    except subprocess.TimeoutExpired:
        # The group is the script's own, with all that it started.
        os.killpg(running.pid, signal.SIGKILL)
        code = running.wait()
    text = log.read_text(errors="replace")
    assert code == 0, text[-8_000:]
    assert "endorsed by Rail" in text
