# One command per chore; `just` alone lists them. Rust's toolchain and a C compiler are enough for those that
# name nothing else; what they name is installed as they say. `./test tools` installs, on Debian, what the
# third-party clients need.

set shell := ["bash", "-euo", "pipefail", "-c"]

[private]
default:
    @just --list

# Everything that CI checks
check:
    ./test

# Tests of the workspace; a name picks those that contain it
test *name:
    cargo test --workspace --locked {{ name }}

# Format all sources
fmt:
    cargo fmt --all
    cargo fmt --manifest-path bench/baseline/Cargo.toml
    cargo fmt --manifest-path bench/load/Cargo.toml
    cargo fmt --manifest-path fuzz/Cargo.toml

# Lints as CI has them, and the house rules
lint:
    ./test format house licences lints outside

# A node with its data in ./daybook-data
run *arguments:
    cargo run --release --locked -- start {{ arguments }}

# A town that trades, on this machine alone; --auto plays the story
demo *arguments:
    cargo run --release --locked -- demo {{ arguments }}

# Third-party clients against real nodes; a name picks a suite (conformance/run --list; needs `./test tools`)
conformance *suites:
    cargo build --locked -p daybook
    conformance/run {{ suites }}

# Measurements of docs/performance.md: all, or those named (bench/run --help; needs Python 3.11, PostgreSQL 15)
bench *names:
    bench/run {{ names }}

# The same with small numbers, to see that it works
bench-quick *names:
    bench/run --quick {{ names }}

# Ten minutes of services that call each other over the bus while some are killed (needs Node.js and npm)
soak:
    bench/run soak

# One fuzz target for some seconds (rustup toolchain install nightly; cargo install --locked cargo-fuzz)
fuzz target seconds="60":
    cd fuzz && cargo +nightly fuzz run {{ target }} -- -max_total_time={{ seconds }} -rss_limit_mb=1024

# Licences, advisories, duplicates, sources (cargo install --locked cargo-deny)
deny:
    cargo deny --all-features check

# Kill a node at random moments, again and again: under transfers, and under payment channels
crash rounds="500" tracker_rounds="200":
    CRASH_ROUNDS={{ rounds }} cargo test --locked -p daybook --test crash -- --nocapture
    CRASH_ROUNDS={{ tracker_rounds }} cargo test --locked -p daybook --test tracker -- --nocapture

# The real books beside naive ones, at length
models operations="1000000":
    REFERENCE_TRANSACTIONS={{ operations }} cargo test --release --locked -p daybook-pipeline --test reference -- --nocapture
    TRACKER_MODEL_OPERATIONS={{ operations }} cargo test --release --locked -p daybook-ledger --test tracker_model -- --nocapture
    cargo test --release --locked -p daybook-ledger --test consortium_model -- --nocapture

# What takes too long for every change: supply chain, models at length, kills, fuzzing (needs what those name)
nightly: deny models crash soak
    for target in fuzz/fuzz_targets/*.rs; do just fuzz "$(basename "$target" .rs)" 60; done
    ./test
