"""A peer of the wallet tracker, made of `cryptography` and `websockets` after the protocol's document."""

import base64
import itertools
import json

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from websockets.sync.client import connect

HANDSHAKE, OPEN_INCOME, OPEN_SPEND, OPEN_TRANSFER, CLOSE_TRANSFER = 1, 2, 4, 8, 16
CLOSE_INCOME, CLOSE_SPEND, INCOME_STATE, SPEND_STATE, TRANSFER_STATE = 32, 64, 128, 256, 512
FIRST, NEXT, TOUCH, COMMON_STATE = 1024, 2048, 4096, 8192

# A node answers within milliseconds; the bound only ends a test that would hang.
ANSWER_SECONDS_MAX = 30
# Both halves of a P-256 signature (wallet tracker, section 4.2).
HALF_BYTES = 32


class Refused(Exception):
    def __init__(self, reply):
        super().__init__(f"{reply['error']} ({reply['code']})")
        self.code = reply["code"]


class Key:
    """A key pair in one of the three suites."""

    def __init__(self, kind, *, final_newline=False):
        self.private = {
            "rsa": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "ed25519": ed25519.Ed25519PrivateKey.generate,
        }[kind]()
        pem = self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.pem = pem.decode()
        if not final_newline:
            self.pem = self.pem.rstrip("\n")

    def sign(self, text):
        message = text.encode()
        if isinstance(self.private, rsa.RSAPrivateKey):
            signature = self.private.sign(message, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(self.private, ec.EllipticCurvePrivateKey):
            r, s = utils.decode_dss_signature(self.private.sign(message, ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(HALF_BYTES, "big") + s.to_bytes(HALF_BYTES, "big")
        else:
            signature = self.private.sign(message)
        return base64.b64encode(signature).decode()


def verify(pem, text, sign):
    """Whether `sign` is over `text`, in the suite of the key with this PEM."""
    key = serialization.load_pem_public_key(pem.encode())
    message, signature = text.encode(), base64.b64decode(sign, validate=True)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            assert len(signature) == 2 * HALF_BYTES
            r, s = (int.from_bytes(half, "big") for half in (signature[:HALF_BYTES], signature[HALF_BYTES:]))
            key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


class Peer:
    """One connection. Requests are answered one after the other."""

    def __init__(self, address, key):
        self.key = key
        self.tokens = (f"p-{number}" for number in itertools.count(1))
        self.socket = connect(address, open_timeout=ANSWER_SECONDS_MAX)
        data = self.request(HANDSHAKE, self.single(key.pem))
        self.tracker = data["message"]
        assert verify(self.tracker, data["message"], data["sign"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def single(self, message):
        return {"message": message, "pk": self.key.pem, "sign": self.key.sign(message)}

    def send(self, cmd, payload, token=None):
        token = next(self.tokens) if token is None else token
        self.socket.send(json.dumps({"cmd": cmd, "corrToken": token, "payload": payload}))
        reply = json.loads(self.socket.recv(timeout=ANSWER_SECONDS_MAX))
        assert reply["corrToken"] == token
        return reply

    def request(self, cmd, payload):
        reply = self.send(cmd, payload)
        if "error" in reply:
            raise Refused(reply)
        assert reply["cmd"] == cmd
        timings = reply.get("exData", {})
        order = [timings[name] for name in ("beforeCreate", "created", "handled") if name in timings]
        assert order == sorted(order)
        return reply["data"]

    def submit(self, cmd, payload):
        data = self.request(cmd, payload)
        assert verify(self.tracker, data["message"], data["sign"])
        answer = json.loads(data["message"])
        assert answer.get("pk", self.tracker) == self.tracker
        return answer

    def ask(self, cmd, **members):
        bare = cmd in (OPEN_INCOME, OPEN_SPEND)
        text = self.key.pem if bare else json.dumps({**members, "pk": self.key.pem})
        return self.submit(cmd, self.single(text))


def cosigned(payer, payee, message):
    return {
        "message": message,
        "fromPK": payer.pem,
        "fromSign": payer.sign(message),
        "toPK": payee.pem,
        "toSign": payee.sign(message),
    }


def contract(payer, payee, terms, volume=None):
    message = {
        "fromPK": payer.pem,
        "toPK": payee.pem,
        "channelId": terms["channel"],
        "fromAddress": terms["from"],
        "toAddress": terms["to"],
        "priceTokens": str(terms["price"]),
        "priceQuantumPower": terms["power"],
        "plannedQuantumCount": terms["planned"],
    }
    if volume is not None:
        count = -(-volume // 2 ** terms["power"])
        message |= {
            "tokens": str(terms["price"] * count),
            "quantumCount": count,
            "volume": volume,
        }
    # Not compact, not sorted, not ASCII only: the bytes that were signed count, whatever they are.
    return json.dumps(message, indent=1, ensure_ascii=False)
