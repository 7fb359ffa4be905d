#!/bin/busybox sh
# PID 1 of a guest of `cargo xtask lab`. It runs the command of /lab/command on the
# second serial port, writes to the console how that ended, and powers the machine off.

/bin/busybox --install -s /bin
export PATH=/bin HOME=/root USER=root

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t securityfs securityfs /sys/kernel/security

# A message of the kernel's must not cut the line with the result in two.
end() {
    dmesg -n 1
    printf '\n%s\n' "$1" >/dev/console
    poweroff -f
}

for module in $(cat /modules/kernel/load-order); do
    insmod "/modules/kernel/$module.ko"
done
ip link set lo up
hostname lab
cd /root || end "lab-result: broken"

. /lab/settings
if [ "$interactive" = yes ]; then
    stty -F /dev/ttyS1 sane rows "$rows" columns "$columns"
    cat /lab/welcome >/dev/ttyS1
    setsid -c sh -l </dev/ttyS1 >/dev/ttyS1 2>&1
    end "lab-result: exit $?"
fi

stty -F /dev/ttyS1 raw -echo
command -v "$program" >/dev/null || end "lab-result: missing"
sh /lab/command </dev/null >/dev/ttyS1 2>&1
end "lab-result: exit $?"
