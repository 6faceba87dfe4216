"""Runs in the VM: connects to the forwarded display with the cookie that `xauth` holds, and talks to it."""

import os
import socket
import struct
import subprocess

display = os.environ["DISPLAY"]
number = int(display.rsplit(":", 1)[1].split(".")[0])
cookie = bytes.fromhex(
    subprocess.run(["xauth", "list", display], check=True, capture_output=True, text=True).stdout.split()[-1]
)
name = b"MIT-MAGIC-COOKIE-1"
pad = lambda text: text + bytes(-len(text) % 4)
with socket.create_connection(("127.0.0.1", 6000 + number), 20) as connection:
    connection.sendall(
        struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(name), len(cookie)) + pad(name) + pad(cookie)
    )
    connection.sendall(b"hello display")
    answer = b""
    while block := connection.recv(4096):
        answer += block
print(answer.decode())
