#!/usr/bin/env bash
# Stored-function transfers in a scratch PostgreSQL 15 with its durability switched on: 50 clients, one
# transfer per call, each answered after its commit is on disk.
#
#   bench/postgres.sh [DIRECTORY] [--quick]
#
# The cluster is made in a new folder in DIRECTORY (default: the temporary directory), which should be
# on the disk that the node's data is on, and removed at the end. Prints one JSON line.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

clients=50
threads=2
seconds=10
rounds=3
parent=${TMPDIR:-/tmp}
for argument in "$@"; do
    if [[ $argument == --quick ]]; then
        seconds=2
        rounds=1
    else
        parent=$argument
    fi
done

bin=/usr/lib/postgresql/15/bin
if [[ ! -x $bin/initdb ]]; then
    as_root=()
    if [[ $EUID -ne 0 ]]; then
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -qq >&2
    # A cluster of the system's own is not wanted, only the programs.
    "${as_root[@]}" mkdir -p /etc/postgresql-common
    [[ -e /etc/postgresql-common/createcluster.conf ]] ||
        echo 'create_main_cluster = false' | "${as_root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql-15 >&2
fi

# PostgreSQL refuses to run as root; its package brings a user for it.
as_postgres=()
if [[ $EUID -eq 0 ]]; then
    as_postgres=(runuser -u postgres --)
fi

folder=$(mktemp -d "$parent/daybook-postgres-XXXXXX")
finish() {
    "${as_postgres[@]}" "$bin/pg_ctl" -D "$folder/data" -m immediate -w stop >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap finish EXIT
cp "$here"/postgres/*.sql "$folder"
chmod 755 "$folder"
if [[ $EUID -eq 0 ]]; then
    chown -R postgres "$folder"
fi
cd "$folder"

"${as_postgres[@]}" "$bin/initdb" -D "$folder/data" -U postgres --auth trust >/dev/null
# No network socket; the local one is in the folder. Durability is what it is by default, and said so.
settings=(
    "listen_addresses=''" "unix_socket_directories='$folder'"
    fsync=on synchronous_commit=on full_page_writes=on
    shared_buffers=1GB max_connections=100
)
"${as_postgres[@]}" "$bin/pg_ctl" -D "$folder/data" -l "$folder/log" -w -t 60 \
    -o "$(printf -- '-c %s ' "${settings[@]}")" start >/dev/null
export PGHOST=$folder PGUSER=postgres PGDATABASE=postgres
"${as_postgres[@]}" "$bin/psql" -q -v ON_ERROR_STOP=1 -f "$folder/schema.sql"
"${as_postgres[@]}" "$bin/psql" -q -v ON_ERROR_STOP=1 -c 'vacuum analyze'

rates=()
latencies=()
for ((round = 0; round < rounds; round++)); do
    answer=$("${as_postgres[@]}" timeout $((seconds + 60)) "$bin/pgbench" -n -M prepared \
        -f "$folder/transfer.sql" -c "$clients" -j "$threads" -T "$seconds")
    if [[ ! $answer =~ number\ of\ failed\ transactions:\ 0\  ]]; then
        echo "$answer" >&2
        exit 1
    fi
    rates+=("$(sed -n 's/^tps = \([0-9.]*\).*/\1/p' <<<"$answer")")
    latencies+=("$(sed -n 's/^latency average = \([0-9.]*\) ms/\1/p' <<<"$answer")")
done
version=$("${as_postgres[@]}" "$bin/psql" -Atc 'show server_version')
made=$("${as_postgres[@]}" "$bin/psql" -Atc 'select count(*) from transfers')
balance=$("${as_postgres[@]}" "$bin/psql" -Atc 'select sum(debits) - sum(credits) from accounts')
[[ $balance == 0 ]]

python3 - "$version" "$clients" "$seconds" "$made" "${rates[*]}" "${latencies[*]}" <<'PYTHON'
import json, statistics, sys

version, clients, seconds, made, rates, latencies = sys.argv[1:]
rates = [float(each) for each in rates.split()]
latencies = [float(each) for each in latencies.split()]
print(json.dumps({
    "event": "postgres",
    "version": version,
    "clients": int(clients),
    "seconds": int(seconds),
    "transactions": int(made),
    "transactions_per_second": statistics.median(rates),
    "rounds": rates,
    "latency_us_mean": round(statistics.median(latencies) * 1000),
}))
PYTHON
