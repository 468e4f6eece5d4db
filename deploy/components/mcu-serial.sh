#!/bin/sh
# Puts firmware into a microcontroller on a serial port, by the boot loader in its ROM. For [[components]] of kind "program".
#
#   [[components]]
#   name = "mcu"
#   kind = "program"
#   capacity = 262144
#   version = "1.4"
#   install = ["/usr/lib/tern/mcu-serial.sh", "/dev/ttyS1", "/usr/share/board/mcu-1.4.bin"]
#   revert = ["/usr/lib/tern/mcu-serial.sh", "/dev/ttyS1", "/usr/share/board/mcu-1.4.bin"]
#   deadline = 300
#
# Arguments: the port, the factory's firmware ("version" above), which a revert needs where no release brought the former
# one, and perhaps the file of the lock (/run/lock/tern-mcu). The agent tells the rest: TERN_STEP is "install" or "revert",
# TERN_SLOT_PATH the package that is to be in afterwards, empty for the factory's. There is no verb for keeping: what is in stays.
# Both may run again after a power cut, a revert also where no install began: what is in already is not written again.
# Exit code 0: it is in; 75: somebody else has the port; anything else: it failed, and the agent has the former one put back.
#
# Made for stm32flash; for another tool change what stands between the lines. In the unit of deploy/ it needs a drop-in with
# DeviceAllow=char-ttyS rw and ReadWritePaths=/run/lock.
set -eu
port=${1:?name the serial port}
factory=${2:?name the firmware that the factory put in}
lock=${3:-/run/lock/tern-mcu}

# --- the board -----------------------------------------------------------------------------------------------------------
baud=115200
# How its lines make it start in the boot loader, and leave it: `stm32flash -h`, option -i.
lines=rts,-dtr,dtr:-rts,-dtr,dtr
start=0x08000000
tool() { stm32flash -b "$baud" -i "$lines" "$@" "$port"; }
# Has file $1 be the first $2 bytes that are in.
fetch() { tool -r "$1" -S "$start:$2"; }
# Writes file $1, reads it back, and starts it.
put() { tool -w "$1" -v -S "$start" -g "$start"; }
# -------------------------------------------------------------------------------------------------------------------------

case ${TERN_STEP:-} in
install | revert) ;;
*)
    echo "TERN_STEP is not install or revert: the agent runs this"
    exit 64
    ;;
esac
firmware=${TERN_SLOT_PATH:-}
[ -n "$firmware" ] || firmware=$factory
if [ ! -s "$firmware" ]; then
    echo "there is no firmware in $firmware"
    exit 1
fi
exec 9>>"$lock"
if ! flock -n 9; then
    echo "somebody else has $port"
    exit 75
fi
found=$(mktemp)
trap 'rm -f "$found"' EXIT
# A microcontroller that does not say what is in it may still take something new.
if fetch "$found" "$(wc -c <"$firmware")" && cmp -s "$found" "$firmware"; then
    echo "it is in already"
    exit 0
fi
put "$firmware"
