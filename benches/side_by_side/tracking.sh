#!/usr/bin/env bash
# What tracking costs a workload: fio's IOPS with and without it, in pairs, the order changing from pair to pair.
# Usage: tracking.sh [PAIRS] [SECONDS]. As root.
. "$(dirname "$0")/lib.sh"
need fio losetup awk
pairs=${1:-10} duration=${2:-5}
truncate -s 1G "$work/image"
"$lifeboat" store create --dir "$work/store" >/dev/null 2>&1
loop=$(losetup --find --show --direct-io=on "$work/image")
# Written once, so that the workload allots no space.
dd if=/dev/zero of="$loop" bs=1M count=1024 oflag=direct status=none
iops() {
    fio --name=w --filename="$loop" --rw=randwrite --bs=4k --size=1G --direct=1 --ioengine=libaio --iodepth=16 \
        --time_based --runtime="$duration" --randseed=1 --output-format=terse --terse-version=3 | cut -d';' -f49
}
# One point attaches the tracking; it stays without an agent.
track() { "$lifeboat" agent replicate --dir "$work/store" --name bench --count 1 "$loop" >/dev/null; }
for ((pair = 0; pair < pairs; pair++)); do
    if ((pair % 2)); then
        without=$(iops)
        track
        with=$(iops)
        unpin
    else
        track
        with=$(iops)
        unpin
        without=$(iops)
    fi
    echo "$with $without"
done | tee "$work/pairs" | awk '{ printf "pair: with %d, without %d, ratio %.3f\n", $1, $2, $1 / $2 }'
echo "median IOPS with $(cut -d' ' -f1 "$work/pairs" | median), without $(cut -d' ' -f2 "$work/pairs" | median)"
echo "median of the ratios $(awk '{ print $1 / $2 }' "$work/pairs" | median); quartiles $(awk '{ print $1 / $2 }' "$work/pairs" | percentile 25) $(awk '{ print $1 / $2 }' "$work/pairs" | percentile 75)"
