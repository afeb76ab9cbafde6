
# A guest that runs what comes in on the port named "shell", a command a line, in this shell with nothing to read, and answers with
# its output and a last line "END number status". Ends when the host says poweroff.
load_modules
until shell=$(port_named shell); do usleep 50000; done
exec 3<> "$shell"
number=0
printf 'END 0 0\n' >&3
while IFS= read -r command <&3; do
    number=$((number + 1))
    eval "$command" < /dev/null > /tmp/output 2>&1
    status=$?
    cat /tmp/output >&3
    printf '\nEND %d %d\n' "$number" "$status" >&3
done
poweroff -f
