# The guest's first process, once its root file system is a copy of the host's: makes of it a machine in which the tests
# can run, runs them, and turns it off. What they write goes to the second serial port.
set -e
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TMPDIR=/run/tmp
export TSFLANNEL_TEST_SLOWNESS=4

mount -t tmpfs -o mode=755 run /run
mkdir /run/tmp /run/lock /run/results /run/kmod
mkdir -p /dev/pts /dev/shm "/lib/modules/$RELEASE"
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none results /run/results

# The kernel loads modules by itself, with this program; without it not even iptables works.
mount --bind "$MODULES" "/lib/modules/$RELEASE"
ln -s "$KMOD" /run/kmod/modprobe
rm -f /sbin/modprobe
printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec /run/kmod/modprobe "$@"\n' "'$LIBRARIES'" >/sbin/modprobe
chmod +x /sbin/modprobe
echo /sbin/modprobe >/proc/sys/kernel/modprobe

ip link set lo up
stty -F /dev/ttyS1 raw
echo "Linux $RELEASE is up" >/dev/ttyS1
cd "$DIRECTORY"
"$NODE" "$PROGRAM" 2>&1 </dev/null | cat >/dev/ttyS1
echo 'the program has ended'
"$BUSYBOX" poweroff -f
