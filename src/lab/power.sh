#!/bin/sh
# The power button was pressed: end the writer, leave the file system clean, power off.
b=/bin/busybox
: >/run/ending
$b killall -TERM lifeboat
while $b pidof lifeboat >/dev/null; do $b usleep 20000; done
$b sync
$b mount -o remount,ro /
$b poweroff -f
