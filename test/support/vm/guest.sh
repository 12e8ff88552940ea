# The guest's first process, once its root file system is a copy of the host's: makes of it a machine in which the tests
# can run, runs them, and turns it off. What they write goes to the second serial port.
set -e
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TMPDIR=/run/tmp
export TSFLANNEL_TEST_SLOWNESS=8

mount -t tmpfs -o mode=755 run /run
mkdir /run/tmp /run/lock /run/results
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none results /run/results

# With this program the kernel loads modules by itself; without it not even iptables works.
command -v modprobe >/proc/sys/kernel/modprobe

# On a machine that is started as usual its device file is there from the beginning, and brings the module.
modprobe tun
ip link set lo up
echo guest >/proc/sys/kernel/hostname
stty -F /dev/ttyS1 raw
echo "Linux $(uname -r) is up" >/dev/ttyS1
cd "$DIRECTORY"
"$NODE" "$PROGRAM" 2>&1 </dev/null | cat >/dev/ttyS1
echo 'the program has ended'
busybox poweroff -f
