#!/bin/sh
# Busy while a call goes on. For load_command of [when], or a hook of step "check".
#
# ModemManager is asked; who cannot be asked may be in a call.
set -eu
if ! calls=$(mmcli --modem any --voice-list-calls 2>&1); then
    echo "the modem does not say: $calls"
    exit 75
fi
case $calls in
*"No calls were found"*) exit 0 ;;
*)
    echo "a call goes on"
    exit 75
    ;;
esac
