# Runs in the VM for pty_peer.py.
trap 'echo interrupted' INT
while :; do
    read -r line || continue
    case $line in
    size) echo "size $(stty size)" ;;
    quit) echo bye; exit 9 ;;
    esac
done
