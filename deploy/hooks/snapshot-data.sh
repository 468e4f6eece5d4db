#!/bin/sh
# Copies user data aside before a release may change it. Steps "snapshot" and "confirmed"; undo.sh puts it back.
#
#   [[hooks]]
#   step = "snapshot"
#   name = "data"
#   command = ["/usr/lib/tern/snapshot-data.sh", "/var/lib/tern-snapshot"]
#   undo = ["/usr/lib/tern/undo.sh", "/var/lib/tern-snapshot"]
#   deadline = 600
#
#   [[hooks]]
#   step = "confirmed"
#   name = "drop-snapshot"
#   command = ["/usr/lib/tern/snapshot-data.sh", "/var/lib/tern-snapshot"]
#
# The folder lies outside every area of [data], and of both slots. Needs GNU cp: --reflink=auto costs nothing on btrfs and
# XFS; elsewhere there must be room for a second copy. An area is one file system: what is mounted inside is left out.
# What cannot be kept (an attribute on a file system that has none, an owner without the capability) fails the update
# before anything has changed. Of a file with holes, zeros that were written may be holes afterwards; no other is touched.
set -eu
snapshot=${1:?name the folder for the copy}
: "${TERN_DATA:?no areas: name them in [data] of agent.toml}"

if [ "${TERN_STEP:-}" = confirmed ]; then
    rm -f "$snapshot/whole"
    rm -rf "$snapshot"
    exit 0
fi
whole=$(cat "$snapshot/whole" 2>/dev/null || true)
# After a power cut hooks run again. What "migrate" may have changed by then must not take the place of the copy.
if [ "$whole" = "$TERN_RC" ]; then
    echo "the copy for release $TERN_RC is whole already"
    exit 0
fi
# The copy of another release is what its undo still needs, and the data may be half of either: no other copy takes its
# place. Unless that release runs now: then it was confirmed, and only its copy was not dropped.
if [ -n "$whole" ] && [ "$(cat "$snapshot/version" 2>/dev/null || true)" != "${TERN_FROM_VERSION:-}" ]; then
    echo "release $whole was not undone: run undo.sh with TERN_RC=$whole, or remove $snapshot if the data is right"
    exit 75
fi
rm -f "$snapshot/whole"
rm -rf "$snapshot"
(umask 077 && mkdir -p "$snapshot")
# Half of a copy is of no use, and the room it takes may be the last.
trap '[ -e "$snapshot/whole" ] || rm -rf "$snapshot"' EXIT
number=0
old_ifs=$IFS
IFS=:
set -f
for area in $TERN_DATA; do
    number=$((number + 1))
    if [ -d "$area" ]; then
        mkdir "$snapshot/$number"
        cp -ax --preserve=xattr --reflink=auto "$area/." "$snapshot/$number/"
    fi
done
IFS=$old_ifs
echo "${TERN_VERSION:-}" >"$snapshot/version"
sync -f "$snapshot"
# Last: without it undo.sh touches nothing.
echo "$TERN_RC" >"$snapshot/new"
sync "$snapshot/new"
mv "$snapshot/new" "$snapshot/whole"
sync "$snapshot"
