"""A session whose secrets are known: what another process must not hold of it can then be looked for there.

Arguments: host port login key host-key. Prints, line by line, "name hex" of every secret of every key exchange, of the proof
and of what was typed before, during and after the moment of a handoff; then "ready", and stays until its input ends.
"""

import base64
import sys

import paramiko
from paramiko.auth_handler import AuthHandler
from paramiko.common import cMSG_GLOBAL_REQUEST, cMSG_IGNORE
from paramiko.message import Message
from paramiko.transport import Transport

host, port, login, key, host_key = sys.argv[1:6]


def tell(name, secret):
    print(name, secret.hex(), flush=True)


def sbox():
    """Of AES (FIPS 197 §5.1.1)."""
    log, exp, value = [0] * 256, [0] * 256, 1
    for power in range(255):
        log[value], exp[power] = power, value
        value ^= (value << 1) ^ (0x11B if value & 0x80 else 0)
        value &= 0xFF
    box = []
    for byte in range(256):
        inverse = exp[(255 - log[byte]) % 255] if byte else 0
        turned = inverse * 0x0101
        box.append(0x63 ^ inverse ^ (turned >> 7 ^ turned >> 6 ^ turned >> 5 ^ turned >> 4) & 0xFF)
    return box


SBOX = sbox()


def last_round_key(key):
    """The end of the expanded key (FIPS 197 §5.2)."""
    size, constant = len(key) // 4, 1
    words = [key[i : i + 4] for i in range(0, len(key), 4)]
    for i in range(size, 4 * (size + 7)):
        word = words[-1]
        if i % size == 0:
            word = bytes(SBOX[byte] for byte in word[1:] + word[:1])
            word = bytes([word[0] ^ constant]) + word[1:]
            constant = (constant << 1) ^ (0x11B if constant & 0x80 else 0)
        elif size > 6 and i % size == 4:
            word = bytes(SBOX[byte] for byte in word)
        words.append(bytes(a ^ b for a, b in zip(words[i - size], word)))
    return b"".join(words[-4:])


# FIPS 197, appendix A.1.
assert last_round_key(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")).hex() == "d014f9a8c9ee2589e13f0cc8b6630ca6"

exchanges = [0]


class Known(Transport):
    def _set_K_H(self, secret, hash_):
        super()._set_K_H(secret, hash_)
        exchanges[0] += 1
        if isinstance(secret, int):
            secret = secret.to_bytes((secret.bit_length() + 7) // 8, "big")
        tell(f"K{exchanges[0]}", secret)

    def _compute_key(self, letter, size):
        derived = super()._compute_key(letter, size)
        tell(f"{letter}{exchanges[0]}", derived)
        if letter in "CD":
            tell(f"{letter}{exchanges[0]}.schedule", last_round_key(derived))
        return derived

    def say(self, number, name):
        message = Message()
        message.add_byte(number)
        message.add_string(f"marker {name} the switch")
        if number == cMSG_GLOBAL_REQUEST:
            message.add_boolean(False)
        tell(name, f"marker {name} the switch".encode())
        self._send_message(message)


class Auth(AuthHandler):
    def _parse_service_accept(self, message):
        self.transport.say(cMSG_IGNORE, "before")
        super()._parse_service_accept(message)

    def _parse_userauth_success(self, message):
        # Whatever key exchange the server begins is read only behind this.
        self.transport.say(cMSG_GLOBAL_REQUEST, "during")
        super()._parse_userauth_success(message)


class Proving(paramiko.Ed25519Key):
    def sign_ssh_data(self, data, algorithm=None):
        signature = super().sign_ssh_data(data, algorithm)
        parts = Message(signature.asbytes())
        parts.get_string()
        tell("proof", parts.get_string())
        return signature


paramiko.transport.AuthHandler = Auth
transport = Known((host, int(port)))
transport.start_client(timeout=30)
assert transport.get_remote_server_key().asbytes() == base64.b64decode(host_key.split()[1])
transport.auth_publickey(login, Proving(filename=key))
channel = transport.open_session()
channel.exec_command("cat")
channel.sendall(b"marker after the switch\n")
assert channel.recv(100) == b"marker after the switch\n"
tell("after", b"marker after the switch")
print("ready", flush=True)
sys.stdin.read()
transport.close()
