#!/busybox sh
# The guest's first process, in the initramfs. Its root file system becomes the host's, with the unpacked packages as if
# they were installed; nothing here can change either: what is written goes to memory. Then guest.sh goes on there.
set -e
for applet in mkdir mount insmod switch_root sh; do /busybox ln -s /busybox /$applet; done
PATH=/
. /settings

mkdir -p /dev /proc /sys /host /packages /changes /root
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
for module in /modules/*; do insmod "$module"; done

# cache=loose: the host's files are taken to be unchanged while the guest runs, which spares a request at each access.
for share in host packages; do
  mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 $share /$share
done
mount -t tmpfs -o mode=755 changes /changes
mkdir /changes/upper /changes/work
mount -t overlay -o lowerdir=/host:/packages,upperdir=/changes/upper,workdir=/changes/work root /root
for name in dev proc sys; do mount --move /$name /root/$name; done
exec switch_root /root /bin/sh "$GUEST"
