"""Checks that every crate linked into the workspace has a licence that deny.toml allows.

cargo-deny says the same and more, in the nightly run; this takes a second and needs only Cargo."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def allowed():
    """The list `licenses.allow` of deny.toml, so that it is stated once."""
    text = (ROOT / "deny.toml").read_text()
    section = text.split("\n[licenses]\n", 1)[1].split("\n[", 1)[0]
    return set(re.findall(r'"([^"]+)"', section.split("allow = [", 1)[1].split("]", 1)[0]))


def fits(expression, licences):
    """Whether an SPDX expression can be met with the allowed licences: OR and AND, AND binding
    tighter, with parentheses. The old `/` means OR."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def take():
        nonlocal position
        position += 1
        return tokens[position - 1]

    def peek():
        return tokens[position] if position < len(tokens) else None

    def single():
        if peek() == "(":
            take()
            value = either()
            if take() != ")":
                raise ValueError(expression)
            return value
        name = take()
        if peek() == "WITH":
            take()
            name = f"{name} WITH {take()}"
        return name in licences

    def both():
        value = single()
        while peek() == "AND":
            take()
            value = single() and value
        return value

    def either():
        value = both()
        while peek() == "OR":
            take()
            value = both() or value
        return value

    value = either()
    if peek() is not None:
        raise ValueError(expression)
    return value


def main():
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version", "1", "--locked"],
            cwd=ROOT, check=True, stdout=subprocess.PIPE,
        ).stdout
    )
    licences = allowed()
    complaints = []
    for package in metadata["packages"]:
        name = f"{package['name']} {package['version']}"
        if not package["license"]:
            complaints.append(f"{name} names no licence")
        elif not fits(package["license"], licences):
            complaints.append(f"{name}: {package['license']} is not allowed by deny.toml")
        source = package["source"] or ""
        if source and "github.com/rust-lang/crates.io-index" not in source:
            complaints.append(f"{name} comes from {source}")
    print(*sorted(complaints), sep="\n")
    print(f"{len(metadata['packages'])} packages, {len(complaints)} complaints")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
