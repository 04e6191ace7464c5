"""The life of two peers, told by parts that know nothing of the node."""

import json
import secrets

import pytest

from tracker.peer import (
    CLOSE_INCOME, CLOSE_SPEND, CLOSE_TRANSFER, COMMON_STATE, FIRST, HANDSHAKE, INCOME_STATE, Key, NEXT,
    OPEN_INCOME, OPEN_SPEND, OPEN_TRANSFER, Peer, Refused, SPEND_STATE, TOUCH, TRANSFER_STATE, contract,
    cosigned, verify,
)

# Wallet tracker, section 12: what a listed record's signature covers, in this order.
SIGNED_MEMBERS = (
    "amount", "contract_id", "from", "tx_id", "parent_tx_id", "planned_quantum_count", "price_amount",
    "price_quantum_power", "pk", "quantum_count", "status", "timelock", "timestamp", "to", "tx_type",
    "version", "volume",
)
# Wallet tracker, appendix A, V6.
WALLET = "0x0b1dac42cc91283064ePh0awiUFpni1WT_sRm38BktGW4rLqj72ezasw=="


@pytest.fixture
def address(node):
    return f"{node.http.replace('http', 'ws', 1)}/tracker"


def refused(code, ask, *arguments, **members):
    with pytest.raises(Refused) as refusal:
        ask(*arguments, **members)
    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("payer_kind", "payee_kind"),
    [("rsa", "rsa"), ("rsa", "ed25519"), ("ed25519", "p256"), ("p256", "rsa")],
)
def test_a_channel_from_handshake_to_list(address, payer_kind, payee_kind):
    with Peer(address, Key(payer_kind)) as payer, Peer(address, Key(payee_kind)) as payee:
        spend, income = payer.ask(OPEN_SPEND), payee.ask(OPEN_INCOME)
        assert spend["limit"]["amount"] == "10000"
        assert income["current"] == {"amount": "0", "quantumVolume": 0, "volume": 0}
        assert "lifetime" in spend and "timelock" in spend
        terms = {
            "channel": f"канал-{secrets.token_hex(16)}",
            "from": spend["address"],
            "to": income["address"],
            "price": 500,
            "power": 25,
            "planned": 8,
        }
        channel = {"channelId": terms["channel"]}
        opening = cosigned(payer.key, payee.key, contract(payer.key, payee.key, terms))
        opened = payee.submit(OPEN_TRANSFER, opening)
        # The payee submits: the reply comes from the tracker's key of the suite of the payee.
        assert payee.submit(OPEN_TRANSFER, opening)["timelock"] == opened["timelock"]
        assert payer.ask(TRANSFER_STATE, **channel)["state"] == 2
        changed = cosigned(
            payer.key, payee.key, contract(payer.key, payee.key, {**terms, "planned": 7})
        )
        refused("channel_conflict", payee.submit, OPEN_TRANSFER, changed)
        refused("has_open_channels", payer.ask, CLOSE_SPEND, address=spend["address"])

        # Receipts: the payer signs growing totals, the payee countersigns the last one.
        receipts = [
            contract(payer.key, payee.key, terms, volume)
            for volume in (1, 40_000_000, 100_000_000)
        ]
        signed = [(text, payer.key.sign(text)) for text in receipts]
        text, sign = signed[-1]
        close = cosigned(payer.key, payee.key, text) | {"fromSign": sign}
        forged = {**close, "toSign": close["fromSign"]}
        refused("bad_signature", payee.submit, CLOSE_TRANSFER, forged)
        payee.submit(CLOSE_TRANSFER, close)
        payee.submit(CLOSE_TRANSFER, close)
        older = cosigned(payer.key, payee.key, receipts[0])
        refused("already_closed", payer.submit, CLOSE_TRANSFER, older)
        assert payer.ask(TRANSFER_STATE, **channel)["state"] == 4

        paid = {"quantumVolume": 100_663_296, "volume": 100_000_000}
        state = payer.ask(SPEND_STATE, address=spend["address"])
        assert state["current"] == {"amount": "8500", **paid}
        assert "lifetime" not in state
        state = payee.ask(INCOME_STATE, address=income["address"])
        assert state["current"] == {"amount": "1500", **paid}

        fields = {"channel_id": {"value": terms["channel"]}}
        first = payee.ask(FIRST, limits={"pageSize": 1, "page": 1}, order=1, fields=fields)
        meta = first["_meta"]
        assert (meta["totalCount"], meta["pageCount"]) == (2, 2)
        payee.ask(CLOSE_INCOME, address=income["address"])
        payee.ask(TOUCH, cursorId=meta["cursorId"])
        second = payee.ask(NEXT, cursorId=meta["cursorId"], page=2)
        items = first["items"] + second["items"]
        assert [item["tx_type"] for item in items] == [8, 16]
        assert items[1]["parent_tx_id"] == items[0]["tx_id"]
        for item in items:
            text = json.dumps(
                {name: item[name] for name in SIGNED_MEMBERS},
                separators=(",", ":"),
                ensure_ascii=False,
            )
            assert verify(item["pk"], text, item["sign"])
        refused("cursor_unknown", payee.ask, NEXT, cursorId="none", page=1)

        closed = payer.ask(CLOSE_SPEND, address=spend["address"])
        assert closed["state"] == {"amount": "8500", **paid}
        refused("already_closed", payer.ask, SPEND_STATE, address=spend["address"])


def test_a_wallet_earns(address):
    with Peer(address, Key("rsa")) as payer, Peer(address, Key("ed25519")) as payee:
        before = payee.ask(COMMON_STATE, address=WALLET)["state"]["own"]
        spend = payer.ask(OPEN_SPEND)["address"]
        terms = {
            "channel": secrets.token_hex(16), "from": spend, "to": WALLET, "price": 500, "power": 25,
            "planned": 2,
        }
        opening = contract(payer.key, payee.key, terms)
        payee.submit(OPEN_TRANSFER, cosigned(payer.key, payee.key, opening))
        close = contract(payer.key, payee.key, terms, 2**25)
        payee.submit(CLOSE_TRANSFER, cosigned(payer.key, payee.key, close))
        after = payee.ask(COMMON_STATE, address=WALLET)["state"]["own"]
        assert int(after["fact"]) - int(before["fact"]) == 500
        payer.ask(CLOSE_SPEND, address=spend)


def test_somebody_else_s_address_cannot_be_spent_or_closed(address):
    with Peer(address, Key("ed25519")) as owner, Peer(address, Key("ed25519")) as thief:
        spend = owner.ask(OPEN_SPEND)["address"]
        income = thief.ask(OPEN_INCOME)["address"]
        terms = {
            "channel": secrets.token_hex(16), "from": spend, "to": income, "price": 500, "power": 25,
            "planned": 1,
        }
        opening = contract(thief.key, thief.key, terms)
        refused("not_owner", thief.submit, OPEN_TRANSFER, cosigned(thief.key, thief.key, opening))
        refused("not_owner", thief.ask, CLOSE_SPEND, address=spend)
        owner.ask(CLOSE_SPEND, address=spend)
        thief.ask(CLOSE_INCOME, address=income)


def test_a_key_with_and_without_a_final_newline_shakes_hands(address):
    with Peer(address, Key("rsa")) as plain, Peer(address, Key("rsa", final_newline=True)) as ended:
        assert plain.tracker == ended.tracker


def test_every_reply_echoes_its_token(address):
    with Peer(address, Key("ed25519")) as peer:
        for token in ("", "x" * 1024, "🎈 \" \\ \n здраво"):
            reply = peer.send(HANDSHAKE, peer.single(peer.key.pem), token)
            assert "error" not in reply


def test_duplicate_members_and_lone_surrogates_are_refused(address):
    with Peer(address, Key("ed25519")) as peer:
        pem = json.dumps(peer.key.pem)
        for text in (
            f'{{"channelId":"a","channelId":"b","pk":{pem}}}',
            f'{{"channelId":"\\ud800","pk":{pem}}}',
        ):
            assert peer.send(TRANSFER_STATE, peer.single(text))["code"] == "bad_message"
