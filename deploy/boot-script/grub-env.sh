#!/bin/sh
# The boot record for GRUB, as `boot.kind = "script"` asks for it: get, set, running.
#
# The record is an environment block of its own (1024 bytes, as `grub-editenv FILE create` makes it), which grub.cfg
# beside this file reads, and in which GRUB itself takes the tries. All of it stands in the first 512 bytes, and is
# written over in place: one sector, which a medium writes whole or not at all. No new file and no rename: GRUB replays
# no journal, and would find the old one.
#
# Where: TERN_GRUB_ENV, else /boot/grub/tern.env. On a file system that GRUB can write to: FAT, or ext2 to ext4 without
# inline_data; no LVM, no RAID, no btrfs. busybox is enough.
set -eu
file="${TERN_GRUB_ENV:-/boot/grub/tern.env}"
cmdline="${TERN_CMDLINE:-/proc/cmdline}"
header='# GRUB Environment Block'
fail() { echo "$*" >&2; exit 1; }

whole() {
  [ "$(wc -c <"$file")" -eq 1024 ] && [ "$(head -n 1 "$file")" = "$header" ] ||
    fail "$file is no environment block; look at it, then make one with: grub-editenv $file create"
}

value() { sed -n "s/^$1=//p" "$file" | head -n 1; }

case "${1:-}" in
get)
  # Before `tern-agent provision` there is none.
  [ -e "$file" ] || exit 0
  whole
  active="$(value tern_active)" trial="$(value tern_trial)"
  [ -n "$active" ] || exit 0
  if [ -n "$trial" ]; then
    printf '{"active":"%s","trial":{"slot":"%s","rc":%s,"tries_left":%s}}\n' \
      "$active" "$trial" "$(value tern_trial_rc)" "$(value tern_tries)"
  else
    printf '{"active":"%s"}\n' "$active"
  fi
  ;;
set)
  # The record comes as JSON too; a shell takes the words.
  cat >/dev/null
  case "$TERN_ACTIVE:$TERN_TRIAL:$TERN_TRIES:$TERN_TRIAL_RC" in
  *[!ab0-9:]*) fail "unexpected words: $TERN_ACTIVE $TERN_TRIAL $TERN_TRIES $TERN_TRIAL_RC" ;;
  esac
  block() {
    {
      printf '%s\ntern_active=%s\ntern_trial=%s\ntern_tries=%s\ntern_trial_rc=%s\n' \
        "$header" "$TERN_ACTIVE" "$TERN_TRIAL" "$TERN_TRIES" "$TERN_TRIAL_RC"
      printf '%1024s' '' | tr ' ' '#'
    } | head -c 1024
  }
  if [ ! -e "$file" ]; then
    # Once in a device's life, and again if the power fails in it.
    block >"$file.new"
    sync "$file.new" 2>/dev/null || sync
    mv "$file.new" "$file"
    sync
    exit 0
  fi
  whole
  block | dd of="$file" bs=1024 count=1 iflag=fullblock conv=notrunc,fsync 2>/dev/null || fail "could not write $file"
  ;;
running)
  # Of several the last counts, as for the kernel's own parameters.
  slot="$(tr ' ' '\n' <"$cmdline" | sed -n 's/^tern\.slot=//p' | tail -n 1)"
  [ -n "$slot" ] || fail "$cmdline names no slot; have grub.cfg put tern.slot=\$tern_slot on the kernel's command line"
  echo "$slot"
  ;;
*) fail "usage: $0 get|set|running" ;;
esac
