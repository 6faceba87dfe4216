"""libssh2 1.11 (as ssh2-python bundles it) as a client: exit status, both directions, sftp
if PEER_SFTP says yes.

Arguments: host port login key host-key source uploaded downloaded
"""

import base64
import os
import socket
import sys

from ssh2.session import Session
from ssh2.sftp import (
    LIBSSH2_FXF_CREAT, LIBSSH2_FXF_READ, LIBSSH2_FXF_WRITE, LIBSSH2_SFTP_S_IRUSR,
    LIBSSH2_SFTP_S_IWUSR,
)

host, port, login, key, host_key, source, uploaded, downloaded = sys.argv[1:9]
connection = socket.create_connection((host, int(port)), 30)
session = Session()
session.handshake(connection)
assert session.hostkey()[0] == base64.b64decode(host_key.split()[1]), "another host key"
session.userauth_publickey_fromfile(login, key)
assert session.userauth_authenticated()


def run(command, data=b""):
    channel = session.open_session()
    channel.execute(command)
    view = memoryview(data)
    for at in range(0, len(view), 1 << 16):
        channel.write(bytes(view[at:at + (1 << 16)]))
    channel.send_eof()
    out = bytearray()
    while True:
        size, block = channel.read(1 << 16)
        if size <= 0:
            break
        out += block
    channel.wait_eof()
    channel.close()
    channel.wait_closed()
    return channel.get_exit_status(), bytes(out)


assert run("echo to-out; exit 7") == (7, b"to-out\n")
with open(source, "rb") as file:
    data = file.read()
assert run(f"cat > {uploaded}", data)[0] == 0
status, back = run(f"cat {source}")
assert status == 0
with open(downloaded, "wb") as file:
    file.write(back)

if os.environ["PEER_SFTP"] == "yes":
    sftp = session.sftp_init()
    mode = LIBSSH2_SFTP_S_IRUSR | LIBSSH2_SFTP_S_IWUSR
    with sftp.open(uploaded + ".sftp", LIBSSH2_FXF_CREAT | LIBSSH2_FXF_WRITE, mode) as remote:
        remote.write(data)
    with sftp.open(uploaded + ".sftp", LIBSSH2_FXF_READ, mode) as remote:
        with open(downloaded + ".sftp", "wb") as file:
            for _, block in remote:
                file.write(block)
session.disconnect()
print("done")
