#!/bin/sh
# The first process of a guest: runs the tests in /tests and tells their outcomes on the second serial line.
/bin/busybox mkdir -p /sbin
/bin/busybox --install -s /sbin
export PATH=/usr/sbin:/sbin:/bin HOME=/root TMPDIR=/tmp WEFT_DIFFERENTIAL_PACKETS=2000
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs trace /sys/kernel/tracing
mount -t cgroup2 cgroups /sys/fs/cgroup
exec >/dev/ttyS1 2>&1 </dev/null
stty -onlcr -echo 2>/dev/null
echo "@boot $(uname -r)"
(sleep "$(cat /deadline)"; poweroff -f) &
for module in /modules/*; do
    insmod "$module" || echo "@note the module $module was not loaded"
done
ip link set lo up
for test in /tests/*; do
    echo "@run ${test##*/}"
    # What passes says nothing, but for the one whose table is of interest.
    case $test in
    */programs_budget) show=--nocapture ;;
    *) show= ;;
    esac
    # shellcheck disable=SC2046,SC2086
    "$test" --test-threads=1 $show $(cat /skip)
    echo "@end $?"
done
echo "@done"
poweroff -f
