import sys
import time

import paramiko

host, port, login, key = sys.argv[1:]
key = paramiko.Ed25519Key.from_private_key_file(key)
began = time.monotonic()
transport = paramiko.Transport((host, int(port)))
transport.connect(username=login, pkey=key)
channel = transport.open_session()
channel.exec_command("echo here")
assert channel.recv(1)
print((time.monotonic() - began) * 1000)
transport.close()
