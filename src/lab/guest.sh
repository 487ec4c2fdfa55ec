#!/bin/sh
# Init of a machine of the lab: the network in the background, the judgement of its data at once.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t tmpfs tmpfs /run
$b mount -t tmpfs tmpfs /tmp
# From here on the serial port belongs to the verdict: no line of the kernel may run into it.
echo 1 >/proc/sys/kernel/printk
$b hostname -F /etc/hostname
$b ip link set lo up

read -r address </etc/lab/address
for path in /sys/class/net/*; do
    nic=${path##*/}
    [ "$nic" = lo ] && continue
    # A lease where someone gives one; otherwise the address that the machine always had.
    (
        $b ip link set "$nic" up
        $b udhcpc -i "$nic" -n -q -t 3 -T 1 -s /etc/udhcpc.script >/dev/null 2>&1 ||
            $b ip addr add "$address" dev "$nic"
    ) &
done
# The power button, as a host presses it to end a machine properly.
$b acpid -d -c /etc/acpi >/dev/null 2>&1 &

while :; do
    /usr/bin/lifeboat lab-guest --folder /data --workload /etc/lab/workload
    status=$?
    while [ -e /run/ending ]; do $b sleep 1; done
    echo "LEDGER BROKEN the program that judges it ended with status $status" >/dev/ttyS0
    $b sleep 5
done
