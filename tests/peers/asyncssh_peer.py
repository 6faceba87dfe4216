"""asyncssh as a client.

Arguments: what host port login key host-key [more]
  basic     source uploaded downloaded: sftp too if PEER_SFTP says yes
  signals
  terminal
  channels  count
  liar      claim|forge other-key: offers `key`, signs with `other-key`; prints `reached VM` or `refused`
"""

import asyncio
import os
import sys

import asyncssh

what, host, port, login, key, host_key, *more = sys.argv[1:]


def connect(**options):
    return asyncssh.connect(
        host, int(port), username=login, client_keys=[key], config=None, agent_path=None,
        known_hosts=([asyncssh.import_public_key(host_key)], [], []), **options,
    )


async def basic():
    source, uploaded, downloaded = more
    async with connect() as connection:
        result = await connection.run("echo to-out; echo to-err >&2; exit 7")
        assert (result.exit_status, result.stdout, result.stderr) == (7, "to-out\n", "to-err\n"), result
        sent = await connection.run(f"cat > {uploaded}", stdin=source, encoding=None)
        assert sent.exit_status == 0, sent
        got = await connection.run(f"cat {source}", stdout=downloaded, encoding=None)
        assert got.exit_status == 0, got
        if os.environ["PEER_SFTP"] == "yes":
            async with connection.start_sftp_client() as sftp:
                await sftp.put(source, uploaded + ".sftp")
                await sftp.get(uploaded + ".sftp", downloaded + ".sftp")


async def signals():
    """Against `asyncssh_vm.py`."""
    async with connect() as connection:
        process = await connection.create_process("watch")
        assert await process.stdout.readline() == "ready\n"
        for name in ("USR1", "TERM", "INT"):
            process.send_signal(name)
            assert await process.stdout.readline() == f"signal {name}\n", name
        process.send_break(700)
        assert await process.stdout.readline() == "break 700\n"
        process.stdin.write("over\n")
        assert (await process.wait()).exit_status == 44
        killed = await connection.run("die")
        assert killed.exit_signal and killed.exit_signal[0] == "KILL", killed


async def terminal():
    async with connect() as connection:
        killed = await connection.run("kill -KILL $$")
        assert killed.exit_signal and killed.exit_signal[0] == "KILL", killed
        process = await connection.create_process(
            "stty size; read line; stty size", term_type="xterm", term_size=(80, 24)
        )
        assert (await process.stdout.readline()).split() == ["24", "80"]
        process.change_terminal_size(132, 50)
        process.stdin.write("go\n")
        answer = await process.stdout.read()
        assert answer.split()[-2:] == ["50", "132"], answer


async def channels():
    """As an editor does: many sessions and forwards at once over one connection, opened and closed for a while."""
    count = int(more[0])

    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    echo_port = server.sockets[0].getsockname()[1]

    async with connect() as connection:

        async def session(number):
            result = await connection.run(f"cat; echo {number}; exit {number % 200}", input="x" * 5000)
            assert result.stdout == "x" * 5000 + f"{number}\n", number
            assert result.exit_status == number % 200, result.exit_status

        async def forward(number):
            reader, writer = await connection.open_connection("127.0.0.1", echo_port)
            data = bytes([number % 256]) * 100_000
            writer.write(data)
            writer.write_eof()
            assert await reader.read() == data, number
            writer.close()

        async def refused(number):
            try:
                await connection.open_connection("127.0.0.1", 1)
            except asyncssh.ChannelOpenError:
                return
            raise AssertionError(f"forward {number} to a closed port opened")

        for _ in range(3):
            await asyncio.gather(
                *(work(number) for number in range(count) for work in (session, forward, refused))
            )


async def liar():
    """Once the offer of `key` is accepted, signs with another key: says so (`claim`) or not (`forge`)."""
    from asyncssh import auth

    how, other_path = more
    other = asyncssh.load_keypairs([other_path])[0]
    swapped = []

    async def lie(self):
        public = other if how == "claim" else self._keypair
        swapped.append(True)
        await self.send_request(
            asyncssh.packet.Boolean(True), asyncssh.packet.String(public.algorithm),
            asyncssh.packet.String(public.public_data), key=other, trivial=False,
        )

    auth._ClientPublicKeyAuth._send_signed_request = lie
    try:
        async with connect() as connection:
            result = await connection.run("echo reached $KEYWAY_VM")
            answer = result.stdout.strip()
    except (asyncssh.PermissionDenied, asyncssh.ConnectionLost, asyncssh.DisconnectError):
        answer = "refused"
    assert swapped, "the server accepted no offer"
    print(answer)


asyncio.run(globals()[what]())
if what != "liar":
    print("done")
