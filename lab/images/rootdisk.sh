# An initramfs that goes over to the disk which root= names; its file system has an init of its own.
load_modules
read -r command_line < /proc/cmdline
for word in $command_line; do
    case $word in root=*) root=${word#root=} ;; esac
done
until [ -b "$root" ]; do usleep 20000; done
if mount -t ext4 "$root" /root && [ -x /root/init ]; then
    umount /proc /sys
    umount -l /dev
    exec switch_root /root /init
fi
echo "guest: no root file system on $root" > /dev/console
poweroff -f
