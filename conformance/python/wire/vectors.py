"""The recorded vectors, from the folder that the ledger's own tests read."""

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[3] / "crates" / "ledger" / "tests" / "vectors"


def load(name):
    return json.loads((FOLDER / name).read_text())


def transactions():
    """Every recorded transaction, in the order in which they are to be posted."""
    names = sorted(path.name for path in FOLDER.glob("[0-9][0-9]-*.json"))
    assert len(names) == 43, f"{len(names)} vectors in {FOLDER}"
    return [(name.removesuffix(".json"), load(name)) for name in names]
