#!/bin/sh
# Ends the daemon below $KEYWAY_DOCKERDS and all that it started, once standard input ends: that is when the tests have
# ended, however they did. The path comes by the environment, so that this shell is none of those whose command line has it.
trap '' HUP INT TERM
cat >/dev/null

# A process and all that descend from it: a container's first process says nothing of the path, its parent does.
tree() {
    echo "$1"
    for child in $(cat "/proc/$1"/task/*/children 2>/dev/null); do tree "$child"; done
}
ours() { grep -sl -- "$KEYWAY_DOCKERDS/" /proc/[0-9]*/cmdline | cut -d/ -f3; }

# It stops its containers itself, and takes their control groups away.
daemon=$(cat "$KEYWAY_DOCKERDS/pid" 2>/dev/null)
[ -z "$daemon" ] || kill -TERM "$daemon" 2>/dev/null
left=150
while [ -n "$daemon" ] && [ -e "/proc/$daemon" ] && [ "$left" -gt 0 ]; do
    left=$((left - 1))
    sleep 0.1
done
# Twice: what was starting then has started now.
for _ in 1 2; do
    for id in $(for one in $(ours); do tree "$one"; done); do kill -KILL "$id" 2>/dev/null; done
done
grep -s " $KEYWAY_DOCKERDS/" /proc/mounts | cut -d' ' -f2 | sort -r | while read -r at; do umount -l "$at"; done
rm -rf "$KEYWAY_DOCKERDS"
