"""A person at a terminal: a pty for the client, a window that changes, an interrupt, a logout.

Arguments: the client's command line, which must start a remote `sh -i`-like loop of `pty_remote.sh`.
"""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

LIMIT = 60


def size(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


child, terminal = pty.fork()
if child == 0:
    # The size must stand before the client asks for it.
    size(0, 24, 80)
    os.execvp(sys.argv[1], sys.argv[1:])

seen = ""
deadline = time.monotonic() + LIMIT


def expect(text, nudge=None):
    """Reads until `text` was seen; `nudge` is typed whenever nothing comes for a moment."""
    global seen
    while text not in seen:
        if time.monotonic() > deadline:
            sys.exit(f"{text!r} did not come; seen: {seen!r}")
        ready, _, _ = select.select([terminal], [], [], 0.2)
        if ready:
            try:
                seen += os.read(terminal, 4096).decode(errors="replace")
            except OSError:
                sys.exit(f"the client ended before {text!r}; seen: {seen!r}")
        elif nudge:
            os.write(terminal, nudge)
    seen = seen[seen.index(text) + len(text):]


expect("size 24 80", b"size\n")
size(terminal, 50, 132)
expect("size 50 132", b"size\n")
os.write(terminal, b"\x03")
expect("interrupted")
os.write(terminal, b"quit\n")
expect("bye")
while True:
    ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
    if not ready:
        os.kill(child, signal.SIGKILL)
        sys.exit("the client does not end")
    try:
        if not os.read(terminal, 4096):
            break
    except OSError:
        break
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 9, status
print("done")
