#!/bin/busybox sh
# First program of a machine of the lab: loads the drivers of the hardware that is there, mounts the root, hands over.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev

loaded=" "
load() {
    case "$loaded" in *" $1 "*) return ;; esac
    loaded="$loaded$1 "
    # A module that an earlier group brought along is refused; that is fine.
    while read -r module; do $b insmod "/modules/$module" 2>/dev/null; done <"/modules/$1"
}

load always
for device in /sys/bus/pci/devices/*; do
    read -r vendor <"$device/vendor"
    read -r id <"$device/device"
    read -r class <"$device/class"
    case "$vendor:$id:$class" in
    0x1af4:0x1001:* | 0x1af4:0x1042:*) load virtio-blk ;;
    0x1af4:0x1004:* | 0x1af4:0x1048:*) load virtio-scsi ;;
    0x1af4:0x1000:* | 0x1af4:0x1041:*) load virtio-net ;;
    *:0x010601) load ahci ;;
    *:0x0101*) load ide ;;
    *:0x010802) load nvme ;;
    0x8086:0x100e:*) load e1000 ;;
    0x8086:0x10d3:*) load e1000e ;;
    esac
done

root=
for word in $($b cat /proc/cmdline); do
    case "$word" in root=*) root=${word#root=} ;; esac
done

# Some buses find their disks a moment after their driver was loaded.
turns=0
until device=$($b findfs "$root" 2>/dev/null) && $b mount -t ext4 -o rw,noatime "$device" /root; do
    turns=$((turns + 1))
    if [ $turns -gt 200 ]; then
        echo "LEDGER BROKEN no disk with the file system $root" >/dev/ttyS0
        $b sleep 5
        $b poweroff -f
    fi
    $b usleep 50000
done

$b mount -o move /dev /root/dev
exec $b switch_root /root /sbin/init
