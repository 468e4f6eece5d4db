#!/bin/sh
# Puts back what snapshot-data.sh copied aside. For the key "undo" of that hook; the same folder.
#
# A power cut in the middle leaves the copy whole, and the next run begins again. The folder of an area itself stays, for it may be
# a mount point: only an extended attribute that was added to that very folder is not taken away.
set -eu
snapshot=${1:?name the folder of the copy}
: "${TERN_DATA:?no areas: name them in [data] of agent.toml}"

if [ "$(cat "$snapshot/whole" 2>/dev/null || true)" != "$TERN_RC" ]; then
    echo "no whole copy for release $TERN_RC: nothing was changed"
    exit 0
fi
number=0
old_ifs=$IFS
IFS=:
set -f
for area in $TERN_DATA; do
    number=$((number + 1))
    if [ -d "$snapshot/$number" ]; then
        mkdir -p "$area"
        find "$area" -xdev -mindepth 1 -delete
        cp -ax --reflink=auto --sparse=always "$snapshot/$number/." "$area/"
        sync -f "$area"
    fi
done
IFS=$old_ifs
echo "user data is as it was before release $TERN_RC: ${TERN_REASON:-}"
rm -f "$snapshot/whole"
sync "$snapshot"
rm -rf "$snapshot"
