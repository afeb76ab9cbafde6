#!/bin/busybox sh
# The outer VM: load modules, lay a writable overlay on the host's file tree (9p, read-only), hand over to the agent.
/bin/busybox --install -s /bin
export PATH=/bin
. /lab/settings

mount -t proc proc /proc
mount -t sysfs sysfs /sys
# Guest memory in 2 MiB pages: each fault of the inner guest is an emulated exit, and with 4 KiB pages they are most of its boot.
# Where none is free a small page will do.
echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled
echo never > /sys/kernel/mm/transparent_hugepage/defrag
mount -t devtmpfs devtmpfs /dev

while read -r module; do
    insmod "/modules/$module" || echo "lab: $module does not load" > /dev/console
done < /lab/modules
# A guest that waits lets its processor go at once: there is another emulation to run on it.
echo 0 > /sys/module/kvm/parameters/halt_poll_ns

share=trans=virtio,version=9p2000.L,msize=524288
mkdir -p /host /overlay
mount -t 9p -o "$share,cache=loose,ro" host /host
mount -t tmpfs tmpfs /overlay
mkdir /overlay/upper /overlay/work
mount -t overlay -o lowerdir=/host,upperdir=/overlay/upper,workdir=/overlay/work overlay /root

mkdir -p "/root$LAB" /root/lab-out
mount -t 9p -o "$share,cache=none" lab "/root$LAB"
mount --bind "/root$LAB" /root/lab-out
for directory in $TMPFS; do
    mount -t tmpfs -o mode=1777 tmpfs "/root$directory"
done

for directory in proc sys dev; do
    mount --move "/$directory" "/root/$directory"
done
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /root/dev/pts
mount -t tmpfs -o mode=1777 tmpfs /root/dev/shm
ip link set lo up
hostname lab-outer
eval "exec switch_root /root $AGENT"
