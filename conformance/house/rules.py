"""House rules that no compiler checks. Each complaint names file, line and rule.

Only files that git tracks are read, so what a build leaves behind does not matter."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Recorded bytes and the licence are other people's words.
FOREIGN = re.compile(r"(^LICENSE$|/vectors/|/golden/|/corpus/|^Cargo\.lock$|/Cargo\.lock$)")

# Pieces are joined here so that this file does not break its own rules.
BANNED = {
    "a note instead of the work": re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b"),
    "an unfinished body": re.compile(r"\b(un" r"implemented|to" r"do)!\s*\("),
    "a forgotten probe": re.compile(r"\bd" r"bg!\s*\("),
    "a path of one machine": re.compile(r"(^|[\s\"'`(=:])/(wo" r"rk|ro" r"ot|Us" r"ers|ho" r"me/\w+)/"),
    "the address of a package registry": re.compile(
        r"(static|index)\.cra" r"tes\.io|registry\.np" r"mjs\.org|pyp" r"i\.org|files\.python" r"hosted"
    ),
    "white space at the end of a line": re.compile(r"[ \t]+$"),
}

# What the table of crates in ARCHITECTURE.md promises to be absent, as packages that must not be
# reachable by normal dependencies. `daybook-*` means any crate of ours.
MUST_NOT_REACH = {
    "daybook-keccak": ["daybook-*", "tokio", "rand", "serde_json"],
    "daybook-ledger": [
        "daybook-wire", "daybook-store", "daybook-order", "daybook-pipeline", "daybook-gateway",
        "daybook-client", "tokio", "mio", "hyper", "axum", "rayon", "crossbeam-channel", "rand",
        "getrandom", "serde_json", "tracing", "chrono", "time",
    ],
    "daybook-wire": [
        "daybook-store", "daybook-order", "daybook-pipeline", "daybook-gateway", "daybook-client",
        "tokio", "mio", "hyper", "axum",
    ],
    "daybook-store": [
        "daybook-wire", "daybook-order", "daybook-pipeline", "daybook-gateway", "daybook-client",
        "tokio", "hyper", "axum", "http",
    ],
    "daybook-order": ["daybook-*", "tokio", "hyper", "axum", "http", "serde_json"],
    "daybook-pipeline": [
        "daybook-wire", "daybook-gateway", "daybook-client", "hyper", "axum", "http",
    ],
    "daybook-gateway": ["daybook-order@direct", "daybook-client", "memmap2@direct", "rustix@direct"],
    "daybook-bus": ["daybook-*", "tokio", "rand", "getrandom", "tracing", "chrono", "time"],
    "daybook-bus-gateway": [
        "daybook-order@direct", "daybook-gateway", "daybook-client", "daybook-machine",
    ],
    "daybook-member": [
        "daybook-store", "daybook-order", "daybook-pipeline", "daybook-gateway", "daybook-client",
    ],
    "daybook-client": [
        "daybook-store", "daybook-order", "daybook-pipeline", "daybook-gateway",
    ],
    "daybook-member": [
        "daybook-store", "daybook-order", "daybook-pipeline", "daybook-gateway", "daybook-client",
        "daybook-bus-gateway", "daybook-machine",
    ],
    "daybook-machine": [
        "daybook-store", "daybook-order", "daybook-pipeline", "daybook-gateway",
        "daybook-bus-gateway",
    ],
}


def tracked():
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE
    ).stdout.decode()
    return [name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def words(names):
    for name in names:
        if FOREIGN.search(name):
            continue
        try:
            lines = (ROOT / name).read_text().splitlines()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(lines, 1):
            for rule, pattern in BANNED.items():
                if pattern.search(line):
                    yield f"{name}:{number}: {rule}: {line.strip()[:90]}"


def openings(names):
    """A Rust module opens with the line that says what it is for."""
    for name in names:
        if re.match(r"crates/[^/]+/(src|tests|benches)/.*\.rs$", name):
            text = (ROOT / name).read_text()
            first = next((line for line in text.splitlines() if not line.startswith("#![")), "")
            if not first.startswith("//!"):
                yield f"{name}:1: a module that does not say what it is for"


def locks(names):
    for name in names:
        if name.endswith("package-lock.json") and '"resolved"' in (ROOT / name).read_text():
            yield f"{name}: a lock file with resolved addresses (see .npmrc beside it)"
        if name.endswith("Cargo.lock"):
            sources = set(re.findall(r'^source = "(.*)"$', (ROOT / name).read_text(), re.M))
            for source in sources - {"registry+https://github.com/rust-lang/crates.io-index"}:
                yield f"{name}: packages from {source}"


def metadata():
    return json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version", "1", "--locked"],
            cwd=ROOT, check=True, stdout=subprocess.PIPE,
        ).stdout
    )


def layers():
    graph = metadata()
    names = {package["id"]: package["name"] for package in graph["packages"]}
    ours = {names[identity]: identity for identity in graph["workspace_members"]}
    needs = {
        node["id"]: sorted(
            each["pkg"]
            for each in node["deps"]
            if any(kind["kind"] is None for kind in each["dep_kinds"])
        )
        for node in graph["resolve"]["nodes"]
    }
    for crate, banned in MUST_NOT_REACH.items():
        if crate not in ours:
            yield f"{crate}: this crate is gone; so should be its rule"
            continue
        via = {ours[crate]: None}
        queue = [ours[crate]]
        for current in queue:
            for each in needs[current]:
                if each not in via:
                    via[each] = current
                    queue.append(each)
        for rule in banned:
            name, _, direct = rule.partition("@")
            pattern = re.compile(re.escape(name).replace(r"\*", ".*") + "$")
            for each in needs[ours[crate]] if direct else queue[1:]:
                if pattern.match(names[each]):
                    path = [each]
                    while via[path[-1]] and not direct:
                        path.append(via[path[-1]])
                    way = " < ".join(names[step] for step in path)
                    yield f"{crate}: must not know {names[each]} ({way})"


def pages(names):
    """Links between our own pages lead somewhere."""
    for name in names:
        if not name.endswith(".md"):
            continue
        text = re.sub(r"```.*?```", "", (ROOT / name).read_text(), flags=re.S)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" in target or target.startswith("mailto:"):
                continue
            if not ((ROOT / name).parent / target).exists():
                yield f"{name}: a link to {target}, which is not there"


def main():
    names = tracked()
    complaints = [
        *words(names), *openings(names), *locks(names), *layers(), *pages(names)
    ]
    print(*complaints, sep="\n")
    print(f"{len(names)} files, {len(complaints)} complaints")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
