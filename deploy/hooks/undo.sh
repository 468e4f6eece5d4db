#!/bin/sh
# Puts back what snapshot-data.sh copied aside. For the key "undo" of that hook; the same folder.
#
# Each area is copied beside itself, and the two are exchanged in one step (by GNU mv 9.5, or `tern-agent exchange`): a power
# cut leaves the one tree or the other, whole, and the next run begins again. It needs room for one more copy of an area, the
# folder above it writable, and a file system that can exchange names: ext4, XFS, Btrfs, F2FS, UBIFS.
# Where an area is a mount point, or the folder above it is not writable, its entries are exchanged one by one: there a power
# cut may leave some of either until the next run. In a unit with ProtectSystem=strict an area that is named in
# ReadWritePaths is a mount point: name the folder above it instead.
set -eu
snapshot=${1:?name the folder of the copy}

exchange() {
    mv --exchange -T "$1" "$2" 2>/dev/null || "${TERN_AGENT:-tern-agent}" exchange --one "$1" --other "$2"
}

# Of each_entry, for one of them: names are handed over as they are, whatever is in them.
case $snapshot in
--entry)
    to="$2/${3##*/}"
    if [ -e "$to" ] || [ -L "$to" ]; then exchange "$3" "$to"; else mv -T "$3" "$to"; fi
    exit
    ;;
--surplus)
    from="$2/${3##*/}"
    [ -e "$from" ] || [ -L "$from" ] || rm -rf --one-file-system "$3"
    exit
    ;;
esac

: "${TERN_DATA:?no areas: name them in [data] of agent.toml}"
if [ "$(cat "$snapshot/whole" 2>/dev/null || true)" != "$TERN_RC" ]; then
    echo "no whole copy for release $TERN_RC: nothing was changed"
    # Half of one takes room that the data needs.
    [ -e "$snapshot/whole" ] || rm -rf "$snapshot"
    exit 0
fi

# 0: it is a mount point; 1: it is none; 2: something is mounted in it.
mounts() {
    name=$(printf %s "$1" | sed 's/\\/\\134/g; s/ /\\040/g; s/\t/\\011/g')
    found=1
    while read -r _ _ _ _ point _; do
        case $point in
        "$name") [ "$found" = 2 ] || found=0 ;;
        "$name"/*) found=2 ;;
        esac
    done </proc/self/mountinfo
    return "$found"
}

# Half of a copy is of no use, and the room it takes may be the last.
copy() {
    cp -ax --preserve=xattr --reflink=auto "$1/." "$2/" || {
        rm -rf --one-file-system "$2"
        exit 1
    }
    sync -f "$2"
}

# The folder itself: what was in it is beside it then.
whole_folder() {
    copy "$2" "$1.tern-undo"
    exchange "$1.tern-undo" "$1"
    sync -f "$1"
    rm -rf --one-file-system "$1.tern-undo"
}

# A folder that cannot be moved: what is in it.
each_entry() {
    rm -rf --one-file-system "$1/.tern-undo"
    mkdir -m 700 "$1/.tern-undo"
    copy "$2" "$1/.tern-undo"
    find "$1/.tern-undo" -mindepth 1 -maxdepth 1 -print0 | xargs -0 -r -n 1 "$0" --entry "$1"
    find "$1" -mindepth 1 -maxdepth 1 ! -name .tern-undo -print0 | xargs -0 -r -n 1 "$0" --surplus "$2"
    # Emptied, it has what the folder of the area itself is to have.
    find "$1/.tern-undo" -xdev -mindepth 1 -delete
    cp -a "$1/.tern-undo/." "$1/"
    rmdir "$1/.tern-undo"
    touch -r "$2" "$1"
    sync -f "$1"
}

number=0
old_ifs=$IFS
IFS=:
set -f
for area in $TERN_DATA; do
    number=$((number + 1))
    if [ -d "$snapshot/$number" ]; then
        mkdir -p "$area"
        IFS=$old_ifs
        area=$(readlink -f "$area")
        kind=0
        mounts "$area" || kind=$?
        if [ "$kind" = 2 ]; then
            echo "something is mounted in $area: it is not put back; take that out of the area"
            exit 1
        fi
        # What an earlier run has left: half of a copy, or what it has put out of the way.
        rm -rf --one-file-system "$area.tern-undo" 2>/dev/null || true
        if [ "$kind" = 1 ] && mkdir "$area.tern-undo" 2>/dev/null; then
            whole_folder "$area" "$snapshot/$number"
        else
            each_entry "$area" "$snapshot/$number"
        fi
        IFS=:
    fi
done
IFS=$old_ifs
echo "user data is as it was before release $TERN_RC: ${TERN_REASON:-}"
rm -f "$snapshot/whole"
sync "$snapshot"
rm -rf "$snapshot"
