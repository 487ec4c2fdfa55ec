#!/bin/sh
# The power button was pressed: end the writer, leave the file system clean, power off.
b=/bin/busybox
: >/run/ending
$b killall -TERM lifeboat
while $b pidof lifeboat >/dev/null; do $b usleep 20000; done
$b sync
# What the machine acknowledged in all; told where whoever judges its way home reads it.
size=$($b stat -c %s /data/ledger)
echo "ENDED entries=$(((size - 128) / 128))" >/dev/ttyS0
$b mount -o remount,ro /
$b poweroff -f
