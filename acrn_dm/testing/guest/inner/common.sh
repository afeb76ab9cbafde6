#!/bin/busybox sh
# What every guest script begins with: busybox's commands, the kernel's file systems, and these functions.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
. /lab/settings

# Options of a module stand on the kernel's command line as for modprobe: name.option=value.
load_modules() {
    read -r command_line < /proc/cmdline
    while read -r module; do
        options=
        for word in $command_line; do
            case $word in "${module%.ko}".*) options="$options ${word#*.}" ;; esac
        done
        insmod "/modules/$module" $options || echo "guest: $module does not load" > /dev/console
    done < /lab/modules
}

# The device node of the virtio console port named $1, or a failure.
port_named() {
    for port in /sys/class/virtio-ports/*; do
        if [ -e "$port/name" ] && read -r name < "$port/name" && [ "$name" = "$1" ]; then
            echo "/dev/${port##*/}"
            return 0
        fi
    done
    return 1
}

# The kernel log, levels included, to the port named "report". The host may not be reading: do not wait for it for ever.
report_dmesg() {
    report=$(port_named report) || return 1
    timeout 20 sh -c "dmesg -r > $report"
}
