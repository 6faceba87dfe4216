"""Speaks for a load balancer: proxy_sender.py HOST PORT HEADER_HEX, then carries stdin and stdout.

The header goes out one byte at a time, so that it comes in many reads."""
import os
import select
import socket
import sys

peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for byte in bytes.fromhex(sys.argv[3]):
    peer.sendall(bytes([byte]))
ends = {0: lambda data: peer.sendall(data), peer.fileno(): lambda data: os.write(1, data)}
while ends:
    for end in select.select(list(ends), [], [])[0]:
        data = os.read(end, 65536)
        if data:
            ends[end](data)
        elif end == 0:
            peer.shutdown(socket.SHUT_WR)
            del ends[end]
        else:
            sys.exit(0)
