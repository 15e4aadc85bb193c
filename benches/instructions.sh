#!/bin/sh
# How many instructions of user space a lone round trip of 200 B costs the proxy: under valgrind's callgrind, the
# difference between two runs that differ in nothing but the number of round trips.
#
#   benches/instructions.sh [PROGRAM]     needs valgrind and bash; the program is target/release/mcp-tcp-proxy if not named
set -eu

program=${1:-target/release/mcp-tcp-proxy}
few=2000
many=12000
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# The server returns each request as its response, so both are of the same length.
server='s/"method":"tools\/call","params"/"served":"tools\/call","result"/'

# With one of its thresholds set, the program does not start itself anew, which would leave valgrind behind.
export MALLOC_TRIM_THRESHOLD_=1048576

instructions() {
    # What the last run has logged is not this one's.
    : >"$dir/log"
    valgrind --tool=callgrind --callgrind-out-file="$dir/profile" \
        "$program" --host 127.0.0.1 --port 0 -- sed -u "$server" 2>"$dir/log" &
    pid=$!
    while ! grep -q 'listening on' "$dir/log"; do
        kill -0 "$pid" || { cat "$dir/log" >&2; exit 1; }
        sleep 0.1
    done
    port=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' "$dir/log")
    bash -c '
        text=$(printf "%0100d" 0)
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        for ((id = 10000; id < 10000 + $2; id++)); do
            echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"method\":\"tools/call\",\"params\":{\"name\":\"echo\",\"arguments\":{\"text\":\"$text\"}}}" >&3
            read -r _ <&3
        done' client "$port" "$1"
    kill "$pid"
    wait "$pid" || true
    sed -n 's/^\(totals\|summary\): \([0-9]*\).*/\2/p' "$dir/profile" | head -n 1
}

first=$(instructions "$few")
second=$(instructions "$many")
echo "$(((second - first) / (many - few))) instructions for a lone round trip of 200 B"
