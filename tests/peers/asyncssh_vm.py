"""A VM whose SSH server is asyncssh: it tells which signals and breaks arrive, and echoes in packets of 256 KiB.

(OpenSSH's sshd takes signals only for users other than root.)

Arguments: address port host-key authorized-keys
"""

import asyncio
import sys

import asyncssh

address, port, host_key, authorized_keys = sys.argv[1:]


async def session(process):
    if process.command == "die":
        process.exit_with_signal("KILL", False, "as asked")
        return
    if process.command == "echo":
        while text := await process.stdin.read(1 << 20):
            process.stdout.write(text)
            await process.stdout.drain()
        process.exit(0)
        return
    process.stdout.write("ready\n")
    while True:
        try:
            line = await process.stdin.readline()
        except asyncssh.SignalReceived as received:
            process.stdout.write(f"signal {received.signal}\n")
        except asyncssh.BreakReceived as received:
            process.stdout.write(f"break {received.msec}\n")
        else:
            process.exit(44 if line else 1)
            return


async def serve():
    await asyncssh.listen(
        address, int(port), server_host_keys=[host_key], authorized_client_keys=authorized_keys,
        process_factory=session, max_pktsize=262_144, window=8 << 20,
    )
    await asyncio.Event().wait()


asyncio.run(serve())
