"""Clients that announce a maximum packet size of 256 KiB, as people do to make transfers faster.

Arguments: paramiko|asyncssh host port login key host-key echo-megabytes [source downloaded]
  Sends megabytes to the command `echo` of `asyncssh_vm.py`, or, with a source, fetches that by `cat`.
"""

import asyncio
import base64
import sys
import threading

PACKET = 262_144
WINDOW = 8 << 20

library, host, port, login, key, host_key, megabytes, *files = sys.argv[1:]
text = "".join(f"{number:015x}\n" for number in range(int(megabytes) << 16))


def with_paramiko():
    import paramiko

    client = paramiko.SSHClient()
    kind, blob = host_key.split()[:2]
    client.get_host_keys().add(
        f"[{host}]:{port}", kind, paramiko.Ed25519Key(data=base64.b64decode(blob))
    )
    client.connect(
        host, int(port), login, pkey=paramiko.Ed25519Key.from_private_key_file(key),
        allow_agent=False, look_for_keys=False, timeout=30,
    )

    def session(command):
        channel = client.get_transport().open_session(window_size=WINDOW, max_packet_size=PACKET)
        channel.exec_command(command)
        return channel

    if files:
        source, downloaded = files
        channel = session(f"cat {source}")
        with open(downloaded, "wb") as data:
            while block := channel.recv(1 << 20):
                data.write(block)
    else:
        channel = session("echo")

        def send():
            channel.sendall(text.encode())
            channel.shutdown_write()

        sender = threading.Thread(target=send)
        sender.start()
        back = bytearray()
        while block := channel.recv(1 << 20):
            back += block
        sender.join()
        assert bytes(back) == text.encode(), len(back)
    assert channel.recv_exit_status() == 0
    client.close()


async def with_asyncssh():
    import asyncssh

    options = {"window": WINDOW, "max_pktsize": PACKET}
    async with asyncssh.connect(
        host, int(port), username=login, client_keys=[key], config=None, agent_path=None,
        known_hosts=([asyncssh.import_public_key(host_key)], [], []),
    ) as connection:
        if files:
            source, downloaded = files
            got = await connection.run(f"cat {source}", stdout=downloaded, encoding=None, **options)
        else:
            got = await connection.run("echo", input=text, **options)
            assert got.stdout == text, len(got.stdout)
        assert got.exit_status == 0, got


if library == "paramiko":
    with_paramiko()
else:
    asyncio.run(with_asyncssh())
print("done")
