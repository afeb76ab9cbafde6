
# A guest that reports what it sees of its machine to the port named "report", and ends as ACTION says. It lets the shell
# read what it can: below shadow page tables each new process takes as long as a hundred system calls.
report_line() {
    printf '%s\n' "$*" >> /tmp/report
}

# Boots are counted in the disk's first block: it is what survives a reboot.
count_boots() {
    boots=$(dd if=/dev/vda bs=512 count=1 2> /dev/null | tr -d '\0')
    boots=$((${boots:-0} + 1))
    printf '%-512d' "$boots" | dd of=/dev/vda bs=512 count=1 conv=notrunc,fsync 2> /dev/null
}

wait_for_power_button() {
    report_line "waiting"
    send_report
    while read -r count _ < /sys/firmware/acpi/interrupts/ff_pwr_btn && [ "$count" -eq 0 ]; do usleep 100000; done
}

# S3, until somebody outside ends it.
suspend() {
    send_report
    echo mem > /sys/power/state || report_line "suspend failed"
    digest=$(dd if=/dev/vda bs=64k skip=1 iflag=direct 2> /dev/null | sha256sum)
    if [ "${digest%% *}" = "$before" ]; then disk="disk as before"; else disk="disk differs"; fi
    report_line "resumed $(grep -c ^processor /proc/cpuinfo) cpus, $disk"
}

# Two megabytes of noise to the disk; says what became of them, and what the kernel thought of it.
fill() {
    head -c 2097152 /dev/urandom > /tmp/noise
    dd if=/tmp/noise of=/dev/vda bs=64k seek=1 oflag=direct 2> /dev/null
    report_line "filled $?"
    dd if=/dev/vda of=/tmp/read bs=64k skip=1 count=32 iflag=direct 2> /dev/null
    cmp /tmp/noise /tmp/read > /dev/null && report_line "read as written"
    report_line "complaints $(dmesg | grep -cE 'I/O error|lockup|hung|blocked for')"
}

# The 33rd character is feature 32, VERSION_1: a driver of the legacy interface does not accept it. The 35th is
# RING_PACKED.
report_drivers() {
    bound=0 modern=0 packed=0
    for device in /sys/bus/virtio/drivers/*/virtio[0-9]*; do
        if [ ! -e "$device" ]; then continue; fi
        bound=$((bound + 1))
        read -r features < "$device/features"
        if [ "${features:32:1}" = 1 ]; then modern=$((modern + 1)); fi
        if [ "${features:34:1}" = 1 ]; then packed=$((packed + 1)); fi
    done
    report_line "drivers $bound"
    report_line "modern $modern"
    report_line "packed $packed"
}

report_dmi() {
    words=
    for name in sys_vendor product_name product_serial product_uuid chassis_asset_tag; do
        word=
        read -r word < "/sys/class/dmi/id/$name"
        words="$words$word "
    done
    report_line "dmi $words"
}

report_interrupts() {
    lines=0 messages=0
    grep virtio /proc/interrupts > /tmp/interrupts
    while read -r line; do
        lines=$((lines + 1))
        case $line in *MSI*) messages=$((messages + 1)) ;; esac
    done < /tmp/interrupts
    report_line "interrupts $lines $messages"
}

send_report() {
    cat /tmp/report > "$(port_named report)"
    : > /tmp/report
}

load_modules
until port_named report > /dev/null && [ -b /dev/vda ]; do usleep 50000; done
count_boots
report_line "boot $boots"
if [ -d /sys/firmware/efi ]; then report_line "firmware efi"; else report_line "firmware none"; fi
report_line "cpus $(grep -c ^processor /proc/cpuinfo)"
read -r _ memory _ < /proc/meminfo # the first line is MemTotal
report_line "memory $memory"
before=$(dd if=/dev/vda bs=64k skip=1 2> /dev/null | sha256sum)
before=${before%% *}
report_line "digest $before"
report_drivers
report_dmi
report_interrupts
dmesg -r > /tmp/dmesg
grep -E 'tsc: (Detected|Refined|Fast)|TSC' /tmp/dmesg | sed 's/^<[0-9]*>/tsc /' >> /tmp/report
if [ -x /bin/lspci ]; then lspci -vvnn | while IFS= read -r line; do report_line "lspci $line"; done; fi
if [ -x /bin/dmidecode ]; then dmidecode -d /dev/mem 2>&1 | sed 's/^/dmidecode /' >> /tmp/report; fi
sed -n 's/^<[0-4]>/log &/p' /tmp/dmesg >> /tmp/report
case $ACTION in
    reboot) if [ "$boots" -le "$REBOOTS" ]; then send_report; reboot -f; fi ;;
    button) wait_for_power_button ;;
    suspend) suspend ;;
    fill) fill ;;
esac
send_report
poweroff -f
