
# The demonstration's inner guest: tries each device, and reports to drive.py over the virtio console, one line each:
#   CHECK name ok|fail detail     PCI address vendor:device class driver     PROMPT     DONE
# The port is added some time after the driver is loaded. The kernel echoes and cooks what passes a terminal, unless told
# not to.
open_console() {
    tries=500
    until [ -c /dev/hvc0 ] || [ $tries -eq 0 ]; do
        usleep 20000
        tries=$((tries - 1))
    done
    stty -F /dev/hvc0 raw -echo
    exec 3<> /dev/hvc0
}

say() {
    printf '%s\n' "$*" >&3
}

# verdict NAME DETAIL CONDITION...: reports ok when the condition, a command, succeeds.
verdict() {
    name=$1 detail=$2
    shift 2
    if "$@"; then say "CHECK $name ok $detail"; else say "CHECK $name fail $detail"; fi
}

# Neither side knows when the other begins to listen: say HELLO until the answer comes.
# GO nonce guest-address/prefix host-address
meet_host() {
    while :; do
        say HELLO
        if read -r -t 1 word nonce guest_address host_address <&3 && [ "$word" = GO ]; then return; fi
    done
}

check_kernel() {
    verdict kernel "$(uname -r)" true
}

check_pci() {
    functions=0 bound=0
    for device in /sys/bus/pci/devices/*; do
        functions=$((functions + 1))
        driver=-
        if [ -e "$device/driver" ]; then driver=$(basename "$(readlink "$device/driver")"); fi
        if [ "$driver" = virtio-pci ]; then bound=$((bound + 1)); fi
        read -r vendor < "$device/vendor"
        read -r id < "$device/device"
        read -r class < "$device/class"
        say "PCI ${device##*/} ${vendor#0x}:${id#0x} ${class#0x} $driver"
    done
    verdict pci "$functions functions, $bound with virtio-pci" [ "$bound" -ge 4 ]
}

check_drivers() {
    missing=
    wanted="virtio_blk virtio_net virtio_console virtio_rng"
    for driver in $wanted; do
        set -- "/sys/bus/virtio/drivers/$driver"/virtio*
        if [ ! -e "$1" ]; then missing="$missing $driver"; fi
    done
    verdict drivers "$wanted${missing:+; without a device:$missing}" [ -z "$missing" ]
}

# The 35th character is feature 34, RING_PACKED.
check_rings() {
    packed=
    for driver in $wanted; do
        read -r features < "$(echo "/sys/bus/virtio/drivers/$driver"/virtio*/features)"
        if [ "${features:34:1}" = 1 ]; then packed="$packed $driver"; fi
    done
    verdict rings "packed:${packed:- none}" true
}

check_rng() {
    bytes=$(dd if=/dev/hwrng bs=16 count=1 2> /dev/null | od -An -tx1 | tr -d ' \n')
    verdict rng "$bytes" [ ${#bytes} -eq 32 ]
}

check_disk_read() {
    digest=$(dd if=/dev/vda bs=1M count="$READ_MIB" iflag=direct 2> /dev/null | sha256sum)
    verdict disk-read "${digest%% *}" true
}

# The nonce, a line each time, over and over. The path is there to make the shell execute yes: busybox's shell would
# run its own yes in a fork of itself, whose output is line-buffered like the shell's, a system call a line.
check_disk_write() {
    /bin/yes "$nonce" | dd of=/dev/vda bs=1M count="$WRITE_MIB" seek="$READ_MIB" iflag=fullblock conv=notrunc,fsync 2> /tmp/dd
    verdict disk-write "$WRITE_MIB MiB at $READ_MIB MiB, flushed" grep -q "^$WRITE_MIB+0 records out" /tmp/dd
}

check_ping() {
    ip link set eth0 up
    ip address add "$guest_address" dev eth0
    ping -q -c "$PINGS" -i 0.2 -W 2 "$host_address" > /tmp/ping
    result=$(grep received /tmp/ping)
    verdict ping "${result:-no result}" [ "${result%% packets received*}" = "$PINGS packets transmitted, $PINGS" ]
}

# The host types a line; it comes back reversed, so that no echo on the way can pass for it.
check_console() {
    say PROMPT
    read -r -t 10 line <&3
    verdict console "$(printf '%s' "$line" | rev)" [ -n "$line" ]
}

load_modules
open_console
meet_host
check_kernel
check_pci
check_drivers
check_rings
check_rng
check_disk_read
check_disk_write
check_ping
check_console
verdict kernel-log "$(dmesg | wc -l) lines" report_dmesg
say DONE
read -r -t 5 word <&3 # the host's word that it has read everything
poweroff -f
