#!/bin/sh
# Well when the modem is registered with a network. For [[probes]]: give it a deadline in which a modem comes up.
#
# It waits by itself, for a modem that searches is not broken.
set -eu
while :; do
    state=$(mmcli --modem any --output-keyvalue 2>&1 | sed -n 's/^modem\.generic\.state *: *//p')
    case $state in
    registered | connected | connecting | disconnecting) exit 0 ;;
    failed | locked)
        echo "the modem is $state"
        exit 1
        ;;
    esac
    sleep 2
done
