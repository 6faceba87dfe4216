"""paramiko as a client: exit status, both directions, sftp if PEER_SFTP says yes.

Arguments: host port login key host-key source uploaded downloaded
"""

import base64
import os
import sys

import paramiko

host, port, login, key, host_key, source, uploaded, downloaded = sys.argv[1:9]
client = paramiko.SSHClient()
kind, blob = host_key.split()[:2]
client.get_host_keys().add(
    f"[{host}]:{port}", kind, paramiko.Ed25519Key(data=base64.b64decode(blob))
)
client.set_missing_host_key_policy(paramiko.RejectPolicy())
client.connect(
    host, int(port), login, pkey=paramiko.Ed25519Key.from_private_key_file(key),
    allow_agent=False, look_for_keys=False, timeout=30, banner_timeout=30, auth_timeout=30,
)
# A re-key that the client starts. Not while a channel closes: its thread would then wait for itself. Nor while the server
# starts one, as it does when it hands the session over: two threads would send a KEXINIT each.
held = client.get_transport().open_session()
held.exec_command("cat")
held.sendall(b"x")
assert held.recv(1) == b"x"
client.get_transport().renegotiate_keys()
held.shutdown_write()
_, stdout, stderr = client.exec_command("echo to-out; echo to-err >&2; exit 7")
assert stdout.read() == b"to-out\n" and stderr.read() == b"to-err\n"
assert stdout.channel.recv_exit_status() == 7

channel = client.get_transport().open_session()
channel.exec_command(f"cat > {uploaded}")
with open(source, "rb") as data:
    while block := data.read(1 << 16):
        channel.sendall(block)
channel.shutdown_write()
assert channel.recv_exit_status() == 0

channel = client.get_transport().open_session()
channel.exec_command(f"cat {source}")
with open(downloaded, "wb") as data:
    while block := channel.recv(1 << 16):
        data.write(block)
assert channel.recv_exit_status() == 0

if os.environ["PEER_SFTP"] == "yes":
    sftp = client.open_sftp()
    sftp.put(source, uploaded + ".sftp")
    sftp.get(uploaded + ".sftp", downloaded + ".sftp")
    assert os.path.getsize(downloaded + ".sftp") == os.path.getsize(source)
client.close()
print("done")
