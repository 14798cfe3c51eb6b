#!/usr/bin/env bash
# Several coordinators on this machine, over an etcd and a PostgreSQL of their own: to try a cluster out.
set -euo pipefail

usage() {
    cat <<'TEXT'
Several coordinators on this machine, over an etcd and a PostgreSQL of their own: to try a cluster out.

Usage: deploy/local-cluster.sh [--nodes N] [--port PORT] [--data DIR]

  --nodes N    coordinators [default: 3]
  --port PORT  of the first coordinator; the others follow, then etcd and PostgreSQL [default: 7700]
  --data DIR   folder for everything, kept at the end [default: a temporary one, removed at the end]

It runs until it is interrupted, and then ends all that it has started. It needs `kapell` (from KAPELL, the path, or
this checkout's target folder), `etcd`, and PostgreSQL's `initdb` and `postgres` (from the path, where Debian puts them,
or where `cargo xtask servers` has unpacked them).
TEXT
}

fail() {
    echo "local-cluster: $1" >&2
    # What went wrong can be looked at.
    temporary=
    exit "${2:-1}"
}

nodes=3 port=7700 data=
while [ $# -gt 0 ]; do
    case $1 in
        --nodes | --port | --data)
            [ $# -ge 2 ] || fail "$1 needs a value (hint: --help)" 2
            declare "${1#--}=$2"
            shift 2
            ;;
        -h | --help) usage && exit 0 ;;
        *) fail "unknown argument $1 (hint: --help)" 2 ;;
    esac
done
[[ $nodes =~ ^[1-9]$ ]] || fail "--nodes is a number from 1 to 9, not '$nodes'" 2
[[ $port =~ ^[0-9]+$ && $port -ge 1024 && $port -le 65000 ]] || fail "--port is a number from 1024 to 65000" 2

root=$(cd "$(dirname "$0")/.." && pwd)
unpacked=("${CARGO_TARGET_DIR:-$root/target}/tools/servers" /var/tmp/kapell-test-servers)

# The first of some files that is there.
first() {
    local file
    for file in "$@"; do
        if [ -x "$file" ]; then echo "$file" && return; fi
    done
    return 1
}

# Prints the program of that name, from the path or from folders.
find_program() {
    local name=$1
    shift
    command -v "$name" || first "$@" || fail "$name is not here (hint: install it, or run cargo xtask servers)"
}

kapell=${KAPELL:-$(find_program kapell "$root/target/release/kapell" "$root/target/debug/kapell")}
etcd=$(find_program etcd "${unpacked[@]/%//usr/bin/etcd}")
initdb=$(find_program initdb {,"${unpacked[0]}","${unpacked[1]}"}/usr/lib/postgresql/*/bin/initdb)
postgres=$(dirname "$initdb")/postgres
# Unpacked, it has its libraries beside it.
libraries=$(compgen -G "${initdb%/usr/lib/postgresql/*}/usr/lib/*-linux-gnu" | paste -sd:) || libraries=

temporary=
if [ -z "$data" ]; then
    data=$(mktemp -d /tmp/kapell-cluster-XXXXXX)
    temporary=$data
else
    mkdir -p "$data"
    data=$(cd "$data" && pwd)
fi

# PostgreSQL does not run as root.
as=()
if [ "$(id -u)" = 0 ]; then
    as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
    chmod 755 "$data"
    mkdir -p "$data/postgres"
    chown nobody:nogroup "$data/postgres"
fi

names=() pids=()
end() {
    trap - EXIT INT TERM
    # In order: coordinators hand over and end before what they stand on.
    local ours at
    ours=("${!pids[@]}")
    for ((at = ${#ours[@]} - 1; at >= 0; at--)); do
        kill -TERM "${pids[ours[at]]}" 2>/dev/null || continue
        wait "${pids[ours[at]]}" 2>/dev/null || true
    done
    [ -z "$temporary" ] || rm -rf "$temporary"
}
trap end EXIT
trap 'exit 0' INT TERM

# start NAME COMMAND...
start() {
    local name=$1
    shift
    "$@" >>"$data/$name.log" 2>&1 &
    names+=("$name") pids+=($!)
    echo $! >"$data/$name.pid"
}

# wait_for WHAT COMMAND...
wait_for() {
    local what=$1 tries
    shift
    for ((tries = 0; tries < 300; tries++)); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    fail "$what does not come up; see the logs in $data"
}

listens() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

etcd_port=$((port + nodes)) peer_port=$((port + nodes + 1)) sql_port=$((port + nodes + 2))
for ((at = port; at <= sql_port; at++)); do
    if listens "$at"; then fail "port $at is taken (hint: --port)"; fi
done

start etcd "$etcd" --data-dir "$data/etcd" --log-level warn \
    --listen-client-urls "http://127.0.0.1:$etcd_port" --advertise-client-urls "http://127.0.0.1:$etcd_port" \
    --listen-peer-urls "http://127.0.0.1:$peer_port" --initial-advertise-peer-urls "http://127.0.0.1:$peer_port" \
    --initial-cluster "default=http://127.0.0.1:$peer_port"

export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
if [ ! -e "$data/postgres/data/PG_VERSION" ]; then
    mkdir -p "$data/postgres"
    (cd / && "${as[@]}" "$initdb" -D "$data/postgres/data" -U kapell -A trust -E UTF8 --locale=C) \
        >"$data/initdb.log" 2>&1 || fail "initdb failed; see $data/initdb.log"
fi
start postgres "${as[@]}" "$postgres" -D "$data/postgres/data" -p "$sql_port" \
    -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200
unset LD_LIBRARY_PATH
wait_for etcd listens "$etcd_port"
wait_for PostgreSQL listens "$sql_port"

addresses=
for ((at = 0; at < nodes; at++)); do
    address=127.0.0.1:$((port + at))
    addresses+=${addresses:+,}$address
    start "coordinator-$((at + 1))" "$kapell" coordinator --listen "$address" --node "node-$((at + 1))" \
        --etcd "127.0.0.1:$etcd_port" --postgres "postgres://kapell@127.0.0.1:$sql_port/postgres"
done

# Every one of them knows all others, and every shard has an owner, with whom it stays.
is_whole() {
    local address status
    for address in ${addresses//,/ }; do
        status=$("$kapell" cluster status --address "$address") || return 1
        [ "$(grep -c '^node-' <<<"$status")" = "$nodes" ] || return 1
        ! grep -q '^moving:' <<<"$status" || return 1
    done
}
wait_for "the cluster" is_whole

echo "The cluster is ready; its logs and process ids are in $data. Interrupt to end it. In another terminal:"
echo "  kapell cluster status --address ${addresses%%,*}"
echo "  kapell demo --cluster $addresses"

# Whatever ends meanwhile, the others go on.
for ((left = ${#pids[@]}; left > 0; left--)); do
    status=0
    wait -n -p ended "${pids[@]}" || status=$?
    for at in "${!pids[@]}"; do
        if [ "${pids[at]}" = "${ended:-}" ]; then
            echo "${names[at]} has ended (status $status); its log: $data/${names[at]}.log"
            unset "pids[at]" "names[at]"
        fi
    done
done
