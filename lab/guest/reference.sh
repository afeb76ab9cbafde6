
# Bring every device up, tell the host the kernel log, power off.
load_modules
ip link set eth0 up
dd if=/dev/vda of=/dev/null bs=1M count=1 2> /dev/null
dd if=/dev/hwrng of=/dev/null bs=16 count=1 2> /dev/null
report_dmesg
poweroff -f
