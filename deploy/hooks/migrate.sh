#!/bin/sh
# Brings user data up to what the next release expects, one step after the other. Step "migrate", after a snapshot.
#
#   [[hooks]]
#   step = "migrate"
#   name = "schema"
#   command = ["/usr/lib/tern/migrate.sh", "/data", "/usr/lib/tern/migrations", "7"]
#
# Arguments: the folder of the data, a folder of executables 1, 2, 3 …, and the last of them to run. The number of the last one
# that ran stands in the data itself, so that it comes back with the snapshot. Each may run twice: power may go before its
# number is written.
set -eu
data=${1:?name the folder of the data}
steps=${2:?name the folder of the steps}
last=${3:?give the number of the last step}

at=$(cat "$data/schema" 2>/dev/null || echo 0)
while [ "$at" -lt "$last" ]; do
    at=$((at + 1))
    echo "step $at"
    "$steps/$at" "$data"
    sync -f "$data"
    echo "$at" >"$data/schema.new"
    sync "$data/schema.new"
    mv "$data/schema.new" "$data/schema"
done
