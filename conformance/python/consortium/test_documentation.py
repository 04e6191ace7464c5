"""The commands of the documentation, run as they stand there."""

import os
import re
import socket
import subprocess
from pathlib import Path

from daybook_conformance.node import fresh_folder

PAGE = Path(__file__).resolve().parents[3] / "docs/protocols/consortium-ledgers.md"
SECONDS_MAX = 300


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
    assert len(blocks) >= 8
    script = "\n".join(blocks)
    # Other programs may have the usual ports.
    for usual, free in zip(["9984", "8001", "8002"], free_ports(3)):
        script = script.replace(usual, str(free))
    folder = fresh_folder("consortium-documentation")
    tools = folder / "bin"
    tools.mkdir()
    (tools / "daybook").symlink_to(os.environ["CONFORMANCE_BINARY"])
    python = Path(os.sys.executable).parent
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DAYBOOK_")}
    environment |= {
        "PATH": f"{tools}:{python}:{environment['PATH']}",
        "DAYBOOK_STREAMS_LISTEN": "off",
        "DAYBOOK_BUS_LISTEN": "off",
    }
    # What runs in the background ends with the script.
    head = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n"
    log = folder / "log"
    with log.open("wb") as out:
        done = subprocess.run(
            ["bash", "-c", head + script],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            timeout=SECONDS_MAX,
        )
    text = log.read_text(errors="replace")
    assert done.returncode == 0, text[-8_000:]
    assert "endorsed by Rail" in text
