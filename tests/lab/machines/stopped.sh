
# A guest that prints on its consoles as told over the port named "chan", and answers each order by repeating it.
load_modules
until [ -c /dev/hvc0 ] && [ -c /dev/hvc1 ] && port=$(port_named chan); do usleep 50000; done
# Open until the end: a terminal that nobody has open forgets that it is raw, and cooked output goes line by line.
exec 3<> "$port" 4<> /dev/hvc0 5<> /dev/hvc1
stty raw -echo <&4
stty raw -echo <&5
while :; do
    # The end of the file is what a port says while no host is connected.
    if ! read -r order number <&3; then usleep 50000; continue; fi
    case $order in
        flood) dd if=/dev/zero bs=4k >&4 & dd if=/dev/zero bs=4k >&5 & ;;
        hush) killall -9 dd; wait; echo "THE END" >&4; echo "THE END" >&5 ;;
        off) poweroff -f ;;
    esac
    echo "$order $number" >&3
done
