#!/bin/sh
# Called by udhcpc with what a lease says.
b=/bin/busybox
case "$1" in
bound | renew)
    $b ip addr flush dev "$interface"
    $b ip addr add "$ip/${mask:-24}" dev "$interface"
    for gateway in $router; do
        $b ip route add default via "$gateway" dev "$interface" && break
    done
    ;;
esac
exit 0
