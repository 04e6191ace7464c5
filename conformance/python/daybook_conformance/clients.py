"""The Python drivers behind one small interface, so that every flow is told once. Each environment
holds exactly one of them; which one is found by importing it."""

import hashlib
import importlib.metadata

import base58

# The schema wants 43 or 44 characters; about one key in a thousand is shorter (4.1).
PUBLIC_KEY_CHARACTERS_MIN = 43


class Driver:
    """What all drivers have in common."""

    def __init__(self, node):
        self.node = node
        self.connection = self.connect(node.http)

    def keypair(self):
        while True:
            pair = self.generate_keypair()
            if len(pair.public_key) >= PUBLIC_KEY_CHARACTERS_MIN:
                return pair

    def send(self, transaction, mode="commit"):
        return getattr(self.connection.transactions, f"send_{mode}")(transaction)

    def retrieve(self, transaction_id):
        return self.connection.transactions.retrieve(transaction_id)

    def fulfill(self, transaction, *keypairs):
        return self.connection.transactions.fulfill(
            transaction, private_keys=[pair.private_key for pair in keypairs]
        )

    def create(self, issuer, recipients=None, asset=None, metadata=None):
        """Prepares, signs and commits a CREATE."""
        return self.send(self.signed_create(issuer, recipients, asset, metadata))

    def signed_create(self, issuer, recipients=None, asset=None, metadata=None):
        draft = self.prepare_create([issuer.public_key], recipients, asset, metadata)
        return self.fulfill(draft, issuer)

    def transfer(self, spent, recipients, *signers, metadata=None):
        """Prepares, signs and commits a TRANSFER of `spent`, pairs of a transaction and an index."""
        return self.send(self.signed_transfer(spent, recipients, *signers, metadata=metadata))

    def signed_transfer(self, spent, recipients, *signers, metadata=None):
        draft = self.prepare_transfer(spent, recipients, metadata)
        return self.fulfill(draft, *signers)

    def prepare_transfer(self, spent, recipients, metadata=None):
        return self.connection.transactions.prepare(
            operation="TRANSFER",
            inputs=[spendable(transaction, index) for transaction, index in spent],
            recipients=recipients,
            metadata=metadata,
            **self.asset_link(self.asset_id(spent[0][0])),
        )

    def outputs(self, keypair, spent=None):
        return [
            (each["transaction_id"], each["output_index"])
            for each in self.connection.outputs.get(keypair.public_key, spent)
        ]

    def block(self, height):
        return self.connection.blocks.retrieve(block_height=str(height))


class ClassicDriver(Driver):
    """Version 2.0: one `asset`, data and metadata are objects."""

    version = "2.0"
    dialect = "classic"

    def prepare_create(self, signers, recipients=None, asset=None, metadata=None):
        return self.connection.transactions.prepare(
            operation="CREATE",
            signers=signers,
            recipients=recipients,
            asset=asset,
            metadata=metadata,
        )

    def asset(self, text):
        return {"data": {"kind": "lamp", "serial": text, "nested": {"list": [text, 1, 1.5, None]}}}

    def metadata(self, text):
        return {"remark": text}

    def assets_offered(self):
        return [self.asset("LX-1"), {"data": None}, None]

    @staticmethod
    def asset_link(asset_id):
        return {"asset": {"id": asset_id}}

    @staticmethod
    def asset_id(transaction):
        return transaction["id"] if "data" in transaction["asset"] else transaction["asset"]["id"]

    def history(self, asset_id, operation=None):
        return self.connection.transactions.get(asset_id=asset_id, operation=operation)

    def height_of(self, transaction_id):
        return self.connection.blocks.get(txid=transaction_id)


class BigchainDB(ClassicDriver):
    package = "bigchaindb_driver"
    software = "BigchainDB"

    def __init__(self, node):
        from bigchaindb_driver import exceptions

        self.exceptions = exceptions
        super().__init__(node)

    @staticmethod
    def connect(address):
        from bigchaindb_driver import BigchainDB

        return BigchainDB(address)

    @staticmethod
    def generate_keypair():
        from bigchaindb_driver.crypto import generate_keypair

        return generate_keypair()


class PlanetmintClassic(ClassicDriver):
    package = "planetmint_driver"
    software = "Planetmint"

    def __init__(self, node):
        from planetmint_driver import exceptions

        self.exceptions = exceptions
        super().__init__(node)

    @staticmethod
    def connect(address):
        from planetmint_driver import Planetmint

        return Planetmint(address)

    @staticmethod
    def generate_keypair():
        from planetmint_driver.crypto import generate_keypair

        return generate_keypair()


class PlanetmintStrings(PlanetmintClassic):
    """Version 2.0 as Planetmint 1.1 and 1.2 spoke it: data and metadata are texts."""

    def asset(self, text):
        return {"data": content_identifier(text)}

    def metadata(self, text):
        return content_identifier(text)

    def assets_offered(self):
        # Without any asset this driver writes `"asset": null`, which no server of 2.0 takes.
        return [self.asset("LX-1"), {"data": None}]


class Planetmint(PlanetmintClassic):
    """Version 3.0: a list of `assets`, data and metadata are content identifiers."""

    version = "3.0"
    dialect = "v2"

    def prepare_create(self, signers, recipients=None, asset=None, metadata=None):
        return self.connection.transactions.prepare(
            operation="CREATE",
            signers=signers,
            recipients=recipients,
            assets=asset,
            metadata=metadata,
        )

    def asset(self, text):
        return [{"data": content_identifier(text)}]

    def metadata(self, text):
        return content_identifier(text)

    def assets_offered(self):
        return [self.asset("LX-1"), [{"data": None}], None]

    @staticmethod
    def asset_link(asset_id):
        return {"assets": [asset_id]}

    @staticmethod
    def asset_id(transaction):
        links = [each["id"] for each in transaction["assets"] or [] if "id" in each]
        return links[0] if transaction["operation"] == "TRANSFER" else transaction["id"]

    def history(self, asset_id, operation=None):
        return self.connection.transactions.get(asset_ids=[asset_id], operation=operation)

    def height_of(self, transaction_id):
        block = self.connection.blocks.get(txid=transaction_id)
        assert transaction_id in block["transaction_ids"]
        return block["height"]


def content_identifier(text):
    """A version 0 content identifier: base58 of the multihash of SHA-256."""
    digest = hashlib.sha256(text.encode()).digest()
    encoded = base58.b58encode(b"\x12\x20" + digest)
    return encoded.decode() if isinstance(encoded, bytes) else encoded


def spendable(transaction, index):
    """One output of a transaction as the input that all drivers want to be given."""
    output = transaction["outputs"][index]
    return {
        "fulfillment": output["condition"]["details"],
        "fulfills": {"transaction_id": transaction["id"], "output_index": index},
        "owners_before": output["public_keys"],
    }


def installed():
    """The driver of this environment."""
    for name, driver in (
        ("bigchaindb-driver", {"0.6.2": BigchainDB}),
        (
            "planetmint-driver",
            {"0.9.4": PlanetmintClassic, "0.11.1": PlanetmintStrings, "0.18.5": Planetmint},
        ),
    ):
        try:
            return driver[importlib.metadata.version(name)]
        except importlib.metadata.PackageNotFoundError:
            continue
    raise RuntimeError("this environment holds no driver")
