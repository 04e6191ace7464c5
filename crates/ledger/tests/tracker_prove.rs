//! Addresses, keys and proving: what needs no state (wallet tracker, sections 3 to 5 and appendix A).
#![allow(clippy::unwrap_used)]

use daybook_ledger::{
    BlockTime, SigningKey,
    tracker::{
        ADDRESS_CHARS_MAX, Act, Address, AddressKind, Ask, Code, Fresh, Key, Listing, Nonces,
        PAGE_SIZE_MAX, Payload, Proven, Prover, Refusal, Request, Suite, Suites, Topic, command,
        draft, pem_of,
    },
};
use rand::{SeedableRng, rngs::StdRng};

mod tracker_common;
use tracker_common::*;

/// Throw-away key of vector V4.
const RSA_PEM: &str = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEArvFb89p8MRMMo4w19jlx\nWsO/n4iyxXyy0UVoXekeDnR8PfjHsH/0WwPY/0pXujj08KPDgA6Wi0U7VMoU9Uf4\naC3ecLrjqeUoo7EIrJ53pQuOXAmwzDw57iMmDLqKvSnqhxPcyRjLklNBxR5NbR96\n6Hd8+e+I/V2HMmCR96QlJAwNAX3wcUNFExCxREmEc7z6uXHdv2V7JhK7TnCDBXL9\n3Wh9VvVz/HoSgCcv7ee9T0+1O6w0a6x0am0SlrlFUILlud2IBykW30ihfnjZM6nn\neo/6/NKjcHoZ469/eo3YgxQehyOsOVP6uStOhWOcBktKHnEhDsc1ZOxXGjjizJqS\nXQIDAQAB\n-----END PUBLIC KEY-----";
const RSA_OF_PK: &str = "idVVkzsST/y/gRrCjrDvIneNzdx4vsBbkal5bI83vOiOBGy1LWyD234A7YTghg8ahckDh8/+/aEK5DP9AYp/dGeBijC8AZqJrQ4llk9x3D+PzFYw2b9P7T6tJMsHw+/NUqaLbhxD4vEKhVbRZK3XzXPoLKjkBVUCSVTCp4wS1CGtwoa5WDWDf5aJ5/Q9XOgNrRh4+XD2/emCt7A8w7r7zn5i1sPYVvDzGZklqjmStfLSGAre2UgLODcTxOewLx2qvjeQUbvOEVxCt8TqUbp0uqrvjtdv2rP3FSjzYBiDhSRGQuMW/Bcv5E6fK7YzzB2XwskpLkUT2qSfoujHy4p8VQ==";
const RSA_MESSAGE: &str = "{\"address\":\"0x0ccad9ca76fca87212wlfoNI2jsRFbqvt8XKkLt2sAdoQmzMhd9wvGMw==\",\"note\":\"здраво · ✓\"}";
const RSA_OF_MESSAGE: &str = "rUnCbLd10BlB8Ozvk/jXm5MOF8dO/a/Q2KM65/Eg2Tn2Cs95yQuRdvws1vM21R++Utr+2l7szjnonBbBVmzMbKKOvxV660gapprITo7OstGtcRq7kFafSmFEyPq1/r92UMgHmiWyQCeaZqtptPXmXiJw02srbQ3K/zPvsCmkeavYkTG1yYGdrcYpIbuRlQLO+is5ukdTH7ERBVSmaxXOSUSJPIZan/9/9SsGixSWSKs497HQexmnViYKJr+0H92XqKmk8oUFHBdOcAXdTMNG3XnTBRfX3BtUUAxGoXpCK5TTs7A6VLKXh5XMRZmxFA33mwJW0yclF+Qj1X6IBOZoGg==";

/// V1 to V3, and 11
#[test]
fn addresses_are_derived_as_the_vectors_say() {
    let common = |text: &str| Address::common(text).to_string();
    assert_eq!(
        common("PEER-KEY"),
        "0x0b9986525afe14931czCyfRPT_4m6HtxCd135pc1iA0Cnl9imdgjHjnQ=="
    );
    assert_eq!(
        common("PEER-KEY\n"),
        "0x0b92f807aef7d84a3XHgblhpQwR_oLXDLzU_BjIwOuBoOQqwCXgyEbw=="
    );
    let end = |kind, time| Address::channel_end(kind, "TRACKER-KEY", "PEER-KEY", time).to_string();
    assert_eq!(
        end(AddressKind::Spend, START),
        "0x0ccad9ca76fca87212wlfoNI2jsRFbqvt8XKkLt2sAdoQmzMhd9wvGMw=="
    );
    assert_eq!(
        end(AddressKind::Income, START),
        "0x0d14105312d7267cfdk2pNe6_DOWX2txPEWatFcuzjwEs7gA59TGD8WA=="
    );
    assert_eq!(
        end(AddressKind::Spend, START + 5),
        "0x0c1dfb541f16f1fa7oMF5PSWiOceGrHAX3KV7IdOmoM7-O7iC4GMfgQ=="
    );
    assert_eq!(
        end(AddressKind::Spend, START + 249),
        "0x0c4494b926835079vh0mOACLeNTbSzGnef5M2IZD8IsTAiCZhvxmQg=="
    );
}

/// 12
#[test]
fn addresses_pass_with_a_true_checksum_or_in_the_old_form_and_nothing_else_does() {
    let bad = |text: &str| {
        let refusal = Address::parse(text).unwrap_err();
        assert_eq!(refusal.code, Code::BadAddress, "{text}");
    };
    let address = Address::channel_end(AddressKind::Spend, "T", "P", 1);
    let text = address.as_str();
    assert_eq!(Address::parse(text), Ok(address.clone()));
    let tail = &text[text.len() - 40..];
    let old = Address::parse(&format!("0x0c{tail}")).unwrap();
    assert_eq!(old.tail(), address.tail());
    assert_ne!(old, address, "two texts are two addresses");
    // The other alphabet.
    let standard = tail.replace('-', "+").replace('_', "/");
    assert!(Address::parse(&format!("0x0c{standard}")).is_ok());
    bad(&format!("0x0c{}", &tail[1..]));
    bad(&format!("0x0e{tail}"));
    bad(&format!("0X0c{tail}"));
    bad(&format!("0x0d{}", &text[4..]));
    bad(&format!("0x0c0{}", &text[4..]));
    bad(&text.to_uppercase().replace("0X0C", "0x0c"));
    bad(&text.replace("==", "=a"));
    bad(&format!("{text} "));
    bad(&format!("0x0c{}{tail}", "0".repeat(17)));
    bad("");
    bad("0x0c");
    bad("0x0cé");
    bad(&"é".repeat(ADDRESS_CHARS_MAX / 2));
    for length in 0..text.len() {
        bad(&text[..length]);
    }
    let refusal = Address::parse_as(text, AddressKind::Common).unwrap_err();
    assert_eq!(refusal.to_string(), "invalid common address");
}

/// V4, and 3
#[test]
fn rsa_signatures_verify_over_the_decoded_utf_8_text() {
    let key = Key::read(RSA_PEM).unwrap();
    assert_eq!(key.suite(), Suite::Rsa);
    let suites = Suites::default();
    assert!(key.verify(&suites, RSA_PEM.as_bytes(), RSA_OF_PK));
    assert!(key.verify(&suites, RSA_MESSAGE.as_bytes(), RSA_OF_MESSAGE));
    assert!(!key.verify(&suites, RSA_MESSAGE.as_bytes(), RSA_OF_PK));
    let none = Suites {
        rsa: false,
        ..suites
    };
    assert!(!key.verify(&none, RSA_PEM.as_bytes(), RSA_OF_PK));
    assert_eq!(
        Address::common(RSA_PEM).to_string(),
        "0x0b88a233ba5c99236bL-KWyo9FPwLrpdcbF4o2fV7nmMOZ8fw70I927w=="
    );
    assert_eq!(
        Address::common(&format!("{RSA_PEM}\n")).to_string(),
        "0x0b756fad493d5cd124DKftdSD1qPdnQktCVKURI41jECN2sDs2fILh9g=="
    );
}

/// V5
#[test]
fn p_256_signs_with_sha_256_and_with_md5_only_where_that_is_allowed() {
    let pem = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE2txhAuZjJt2fQjSoLun8MqfXliXi\nyDkNokRSs9BpVSVyIY2J4tEx4Eg6yV2RrJQeCK4NSO8rqUPybuPJ/oTkSQ==\n-----END PUBLIC KEY-----";
    let md5 =
        "tPasX9RcvyMlpkpkuerx0RAla5ShjRirmD0b+60OSa8J5AFnUjk4cQ+z+Ltrp3PJETInPFKcu3UFZU9vTtk0pQ==";
    let sha =
        "aaPP4kTkilC54b68knsaP9NGOyG+gpUE2qO1rLNTdHlGBBLBFFbIddEyE/gR8/qkB3s6PFIuvHGbPFxaPJq9OA==";
    let key = Key::read(pem).unwrap();
    assert_eq!(key.suite(), Suite::P256);
    let default = Suites::default();
    let legacy = Suites {
        legacy_md5: true,
        ..default
    };
    let only_legacy = Suites {
        p256: false,
        ..legacy
    };
    let verify = |suites: &Suites, sign: &str| key.verify(suites, pem.as_bytes(), sign);
    assert!(verify(&default, sha) && !verify(&default, md5));
    assert!(verify(&legacy, sha) && verify(&legacy, md5));
    assert!(!verify(&only_legacy, sha) && verify(&only_legacy, md5));
    // Sixty-four bytes, no fewer.
    assert!(!verify(&legacy, &md5[..84]));
    assert!(!verify(&legacy, ""));
}

/// V6
#[test]
fn ed25519_signs_the_text_itself() {
    let key = SigningKey::from_seed(std::array::from_fn(|i| i as u8));
    let pem = Key::ed25519_pem(&key.public_key());
    assert_eq!(
        pem,
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAA6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\n-----END PUBLIC KEY-----"
    );
    let sign =
        "v/4emHx0FuoXa6Y90fubWycIHac3EWgEm0bmQ3jHMztRDDFxZwPxap9NR6av7naKgEeXN/WiTeB6t8iP+Pj6Bw==";
    let read = Key::read(&pem).unwrap();
    assert!(read.verify(&Suites::default(), pem.as_bytes(), sign));
    assert_eq!(
        Address::common(&pem).to_string(),
        "0x0b1dac42cc91283064ePh0awiUFpni1WT_sRm38BktGW4rLqj72ezasw=="
    );
}

/// 1
#[test]
fn a_key_reads_with_and_without_a_last_newline_and_with_crlf() {
    let key = Key::read(RSA_PEM).unwrap();
    for text in [
        format!("{RSA_PEM}\n"),
        RSA_PEM.replace('\n', "\r\n"),
        format!("{}\r\n", RSA_PEM.replace('\n', "\r\n")),
    ] {
        assert_eq!(Key::read(&text).unwrap().hash(), key.hash());
    }
    for text in [
        "",
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
        &RSA_PEM.replace("PUBLIC", "RSA PUBLIC"),
        &RSA_PEM.replace("MIIB", "MIIC"),
        &RSA_PEM.replace('\n', ""),
        &format!(" {RSA_PEM}"),
        &format!("{RSA_PEM}{RSA_PEM}"),
        &"-".repeat(5_000),
    ] {
        let refusal = Key::read(text).unwrap_err();
        assert_eq!(refusal.code, Code::BadKey);
        assert_eq!(refusal.to_string(), "invalid encoded public key");
    }
}

#[test]
fn one_key_has_one_encoding_and_its_numbers_are_bounded() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let body: String = RSA_PEM
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let der = STANDARD.decode(body).unwrap();
    assert_eq!(pem_of(&der), RSA_PEM);
    let refused = |der: &[u8]| assert!(Key::from_spki(der).is_err());
    refused(&[&der[..], &[0]].concat());
    refused(&der[..der.len() - 1]);
    // The exponent 3 in place of 65537, and another length.
    let mut other = der.clone();
    *other.last_mut().unwrap() = 3;
    refused(&other);
    for place in 0..33 {
        let mut other = der.clone();
        other[place] ^= 0x80;
        if place != 33 {
            refused(&other);
        }
    }
    // Moduli of 2048 to 4096 bits.
    for (bits, taken) in [
        (1_024, false),
        (2_047, false),
        (2_048, true),
        (4_096, true),
        (4_097, false),
    ] {
        assert_eq!(Key::from_spki(&rsa_spki(bits)).is_ok(), taken, "{bits}");
    }
    // Ed25519 keys that nobody can sign with.
    let prefix = STANDARD.decode("MCowBQYDK2VwAyEA").unwrap();
    for key in [[0; 32], [0xff; 32]] {
        refused(&[&prefix[..], &key].concat());
    }
    // A point beside the curve.
    let pem = Peer::p256().pem;
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let mut der = STANDARD.decode(body).unwrap();
    *der.last_mut().unwrap() ^= 1;
    refused(&der);
}

/// A key whose modulus has so many bits, all of them set.
fn rsa_spki(bits: usize) -> Vec<u8> {
    fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
        let length = contents.len();
        let mut der = vec![tag];
        match length {
            0..0x80 => der.push(length as u8),
            0x80..0x100 => der.extend([0x81, length as u8]),
            _ => der.extend([0x82, (length >> 8) as u8, length as u8]),
        }
        der.extend_from_slice(contents);
        der
    }
    let mut modulus = vec![0xff; bits.div_ceil(8)];
    modulus[0] >>= (8 - bits % 8) % 8;
    if modulus[0] >= 0x80 {
        modulus.insert(0, 0);
    }
    let numbers = [element(2, &modulus), element(2, &[1, 0, 1])].concat();
    let public = [vec![0], element(0x30, &numbers)].concat();
    let algorithm = [
        0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    ];
    element(
        0x30,
        &[element(0x30, &algorithm), element(3, &public)].concat(),
    )
}

fn prover() -> Prover {
    Prover::new(Suites::default(), Peer::ed25519(100).key().hash())
}

fn code(result: Result<Proven, Refusal>) -> &'static str {
    result.expect_err("it must be refused").code.as_str()
}

/// 4 and 5
#[test]
fn a_request_is_proven_in_the_order_of_the_checks() {
    let mut prover = prover();
    let peer = Peer::ed25519(1);
    let good = peer.request(command::OPEN_INCOME, &*peer.pem);
    let Ok(Proven::Command(proven)) = prover.prove(good.clone()) else {
        panic!()
    };
    assert!(matches!(proven.act(), Act::OpenIncome(_)));
    assert_eq!(proven.request(), &good);
    let mut with = |change: fn(&mut Request)| {
        let mut request = good.clone();
        change(&mut request);
        code(prover.prove(request))
    };
    fn single(request: &mut Request) -> (&mut String, &mut String, &mut String) {
        let Payload::Single { message, pk, sign } = &mut request.payload else {
            panic!()
        };
        (message, pk, sign)
    }
    assert_eq!(with(|request| request.command = 3), "bad_command");
    assert_eq!(with(|request| request.command = 8), "bad_payload");
    assert_eq!(with(|request| single(request).1.clear()), "bad_key");
    assert_eq!(with(|request| single(request).2.clear()), "bad_signature");
    assert_eq!(
        with(|request| single(request).0.push('\n')),
        "bad_signature"
    );
    let refusal = prover
        .prove(Request {
            command: 3,
            ..good.clone()
        })
        .unwrap_err();
    assert_eq!(refusal.to_string(), "invalid message command: 3");
    let other = Peer::ed25519(2);
    let refusal = prover
        .prove(peer.request(command::HANDSHAKE, &*other.pem))
        .unwrap_err();
    assert_eq!(refusal.to_string(), "invalid message");
    let text = draft::channel_state("c", &other.pem, None);
    let refusal = prover
        .prove(peer.request(command::TRANSFER_STATE, text))
        .unwrap_err();
    assert_eq!(refusal.code, Code::KeyMismatch);
    assert_eq!(refusal.to_string(), "invalid message content");
    // The same members in another order are other bytes.
    let spend = Address::channel_end(AddressKind::Spend, "T", "P", 1);
    let text = draft::about_address(command::SPEND_STATE, &spend, &peer.pem, None);
    let mut request = peer.request(command::SPEND_STATE, text);
    assert!(prover.prove(request.clone()).is_ok());
    if let Payload::Single { message, pk, .. } = &mut request.payload {
        *message = format!(
            "{{\"address\":\"{spend}\",\"pk\":\"{}\"}}",
            pk.replace('\n', "\\n")
        );
    }
    assert_eq!(code(prover.prove(request)), "bad_signature");
}

#[test]
fn what_two_parsers_could_read_differently_is_refused() {
    let mut prover = prover();
    let peer = Peer::ed25519(1);
    let pem = peer.pem.replace('\n', "\\n");
    let mut state = |members: &str| {
        let text = format!("{{\"pk\":\"{pem}\",{members}}}");
        let proven = prover.prove(peer.request(command::TRANSFER_STATE, text));
        proven.map_err(|refusal| refusal.code.as_str()).map(|_| ())
    };
    assert_eq!(state("\"channelId\":\"c\""), Ok(()));
    assert_eq!(state("\"channelId\":\"c\",\"more\":[1.5,{}]"), Ok(()));
    assert_eq!(
        state("\"channelId\":\"c\",\"channelId\":\"c\""),
        Err("bad_message")
    );
    assert_eq!(state("\"channelId\":\"\\ud800\""), Err("bad_message"));
    assert_eq!(state("\"channelId\":\"\\ud83d\\ude00\""), Ok(()));
    assert_eq!(state("\"channelId\":7"), Err("bad_message"));
    assert_eq!(state("\"channel\":\"c\""), Err("bad_message"));
    assert_eq!(state("\"channelId\":\"c\",\"v\":3"), Err("bad_message"));
    let deep = format!(
        "\"channelId\":\"c\",\"x\":{}{}",
        "[".repeat(50),
        "]".repeat(50)
    );
    assert_eq!(state(&deep), Err("bad_message"));
    for text in ["{}", "[]", "null", "", "{\"pk\":1}"] {
        let request = peer.request(command::TRANSFER_STATE, text);
        assert_eq!(code(prover.prove(request)), "bad_message", "{text}");
    }
}

#[test]
fn amounts_are_decimal_digits_and_counts_are_whole_numbers() {
    let mut prover = prover();
    let (alice, bob) = (Peer::ed25519(1), Peer::ed25519(2));
    let spend = Address::channel_end(AddressKind::Spend, "T", "A", 1);
    let good = contract("c", &spend, &Address::common("B"), 8);
    let text = draft::open_transfer(&good, &alice.pem, &bob.pem, None);
    let mut open = |from: &str, to: &str| {
        assert!(text.contains(from));
        let text = text.replace(from, to);
        let proven = prover.prove(cosigned(command::OPEN_TRANSFER, text, &alice, &bob));
        proven.map_err(|refusal| refusal.code.as_str()).map(|_| ())
    };
    assert_eq!(open("\"500\"", "\"0500\""), Ok(()));
    for amount in [
        "500", "\"\"", "\"5.0\"", "\"+5\"", "\"5e2\"", "\" 5\"", "\"-5\"",
    ] {
        let expected = if amount == "500" {
            "bad_message"
        } else {
            "bad_amount"
        };
        assert_eq!(open("\"500\"", amount), Err(expected), "{amount}");
    }
    assert_eq!(
        open("\"500\"", "\"18446744073709551616\""),
        Err("bad_amount")
    );
    assert_eq!(
        open("\"500\"", "\"000000000000000000500\""),
        Err("bad_amount")
    );
    assert_eq!(open("\"500\"", "\"18446744073709551615\""), Err("overflow"));
    assert_eq!(open("Count\":8", "Count\":8.0"), Err("bad_message"));
    assert_eq!(open("Count\":8", "Count\":-8"), Err("bad_message"));
    assert_eq!(open("Count\":8", "Count\":\"8\""), Err("bad_message"));
    assert_eq!(
        open("Count\":8", "Count\":9007199254740992"),
        Err("overflow")
    );
    assert_eq!(open("Power\":25", "Power\":63"), Err("bad_amount"));
    assert_eq!(open("Power\":25", "Power\":99999"), Err("bad_amount"));
    assert_eq!(open("\"c\"", "\"\""), Err("bad_message"));
    assert_eq!(
        open("\"c\"", &format!("\"{}\"", "c".repeat(129))),
        Err("bad_message")
    );
    assert_eq!(open("0x0c", "0x0b"), Err("bad_address"));
    assert_eq!(open("0x0b", "0x0d"), Err("bad_address"));
}

#[test]
fn a_co_signed_message_needs_both_signatures_and_both_keys_inside() {
    let mut prover = prover();
    let (alice, bob, mallory) = (Peer::ed25519(1), Peer::rsa(), Peer::p256());
    let spend = Address::channel_end(AddressKind::Spend, "T", "A", 1);
    let terms = contract("c", &spend, &Address::common("B"), 8);
    let text = draft::open_transfer(&terms, &alice.pem, &bob.pem, None);
    let good = cosigned(command::OPEN_TRANSFER, &*text, &alice, &bob);
    assert!(prover.prove(good).is_ok());
    for (from, to, expected) in [
        (&alice, &mallory, "key_mismatch"),
        (&mallory, &bob, "key_mismatch"),
        (&bob, &alice, "key_mismatch"),
    ] {
        let request = cosigned(command::OPEN_TRANSFER, &*text, from, to);
        assert_eq!(code(prover.prove(request)), expected);
    }
    for spoil in [true, false] {
        let mut request = cosigned(command::OPEN_TRANSFER, &*text, &alice, &bob);
        if let Payload::CoSigned {
            from_sign, to_sign, ..
        } = &mut request.payload
        {
            let sign = if spoil { from_sign } else { to_sign };
            *sign = sign.replace(|c: char| c.is_ascii_digit(), "A");
        }
        assert_eq!(code(prover.prove(request)), "bad_signature");
    }
}

#[test]
fn a_batch_is_proven_as_its_requests_are_one_by_one() {
    let (mut one, mut many) = (prover(), prover());
    let mut random = StdRng::seed_from_u64(11);
    let peers = [
        Peer::ed25519(1),
        Peer::ed25519(2),
        Peer::rsa(),
        Peer::p256(),
    ];
    let mut requests = Vec::new();
    for round in 0..60usize {
        let peer = &peers[round % 4];
        let mut request = peer.request(command::OPEN_SPEND, &*peer.pem);
        if let Payload::Single { message, sign, pk } = &mut request.payload {
            match round / 4 {
                3 => message.push(' '),
                5 => *sign = "AAAA".into(),
                7 => *pk = peers[(round + 1) % 4].pem.clone(),
                9 => pk.push('x'),
                11 => sign.push('='),
                _ => {}
            }
        }
        if round % 9 == 0 {
            request.command = 5;
        }
        requests.push(request);
    }
    let spend = Address::channel_end(AddressKind::Spend, "T", "A", 1);
    for (from, to) in [(0, 1), (1, 2), (2, 3)] {
        let terms = contract("c", &spend, &Address::common("B"), 8);
        let text = draft::open_transfer(&terms, &peers[from].pem, &peers[to].pem, None);
        let mut request = cosigned(command::OPEN_TRANSFER, text, &peers[from], &peers[to]);
        requests.push(request.clone());
        if let Payload::CoSigned { to_sign, .. } = &mut request.payload {
            to_sign.clear();
        }
        requests.push(request);
    }
    let alone: Vec<_> = requests
        .iter()
        .map(|request| {
            one.prove(request.clone())
                .map(|proven| format!("{proven:?}"))
        })
        .collect();
    let batch = many.prove_batch(requests.clone(), &mut random);
    let batch: Vec<_> = batch
        .into_iter()
        .map(|result| result.map(|proven| format!("{proven:?}")))
        .collect();
    let names = |results: &[Result<String, Refusal>]| -> Vec<String> {
        results
            .iter()
            .map(|result| match result {
                Ok(_) => "ok".to_owned(),
                Err(refusal) => format!("{refusal:?}"),
            })
            .collect()
    };
    assert_eq!(names(&alone), names(&batch));
    assert!(alone.iter().filter(|result| result.is_ok()).count() > 20);
}

#[test]
fn a_suite_that_is_not_allowed_is_a_bad_key() {
    let suites = Suites {
        rsa: false,
        ..Suites::default()
    };
    let mut prover = Prover::new(suites, Vec::new());
    let peer = Peer::rsa();
    let request = peer.request(command::HANDSHAKE, &*peer.pem);
    assert_eq!(code(prover.prove(request)), "bad_key");
    assert_eq!(suites.names(), ["ed25519", "p256-sha256"]);
}

/// 1
#[test]
fn a_handshake_takes_both_writings_of_a_key_and_version_2_without_a_tracker() {
    let mut prover = prover();
    let mut peer = Peer::rsa();
    for _ in 0..2 {
        let request = peer.request(command::HANDSHAKE, &*peer.pem);
        assert!(matches!(prover.prove(request), Ok(Proven::Handshake(_))));
        peer.pem.push('\n');
    }
    let peer = Peer::ed25519(1);
    let text = format!(
        "{{\"v\":2,\"cmd\":1,\"corrToken\":\"1\",\"ts\":5,\"nonce\":\"AAAAAAAAAAAAAAAAAAAAAA\",\"pk\":\"{}\"}}",
        peer.pem.replace('\n', "\\n")
    );
    let Ok(Proven::Handshake(handshake)) = prover.prove(peer.request(command::HANDSHAKE, &*text))
    else {
        panic!()
    };
    let fresh = Fresh {
        time: BlockTime(5),
        nonce: [0; 16],
    };
    assert_eq!(handshake.fresh, Some(fresh));
    // Signed for a handshake, it opens nothing.
    assert_eq!(
        code(prover.prove(peer.request(command::OPEN_SPEND, &*text))),
        "bad_message"
    );
}

#[test]
fn listings_have_defaults_and_bounds() {
    let mut prover = prover();
    let peer = Peer::ed25519(1);
    let pem = peer.pem.replace('\n', "\\n");
    let mut listing = |members: &str| -> Result<Listing, &'static str> {
        let text = format!("{{{members}\"pk\":\"{pem}\"}}");
        match prover.prove(peer.request(command::FIRST_TRANSACTIONS, text)) {
            Ok(Proven::Query(query)) => match query.ask {
                Ask::First(listing) => Ok(listing),
                other => panic!("{other:?}"),
            },
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.code.as_str()),
        }
    };
    let default = listing("").unwrap();
    assert_eq!(
        (default.page, default.page_size, default.ascending),
        (1, 20, false)
    );
    let sizes = |text: &str| format!("\"limits\":{{\"pageSize\":{text},\"page\":0}},");
    for (size, expected) in [
        ("0", 20),
        ("-1", PAGE_SIZE_MAX),
        ("7", 7),
        ("5000", PAGE_SIZE_MAX),
    ] {
        let found = listing(&sizes(size)).unwrap();
        assert_eq!((found.page, found.page_size), (1, expected));
    }
    assert_eq!(listing(&sizes("\"7\"")), Err("bad_message"));
    assert!(listing("\"order\":1,").unwrap().ascending);
    assert!(!listing("\"order\":2,").unwrap().ascending);
    let found = listing("\"fields\":{\"tx_type\":{\"value\":16},\"from\":{\"value\":\"x\"}},");
    let found = found.unwrap();
    assert_eq!(
        (found.tx_type, found.from.as_deref()),
        (Some(16), Some("x"))
    );
    assert_eq!(listing("\"fields\":{\"tx_type\":16},"), Err("bad_message"));
    let again = draft::first_transactions(&found, &peer.pem, None);
    let request = peer.request(command::FIRST_TRANSACTIONS, again);
    let Ok(Proven::Query(query)) = prover.prove(request) else {
        panic!()
    };
    assert_eq!(query.ask, Ask::First(found));
    let next = |page| draft::next_transactions("c", page, &peer.pem, None);
    assert!(
        prover
            .prove(peer.request(command::NEXT_TRANSACTIONS, next(1)))
            .is_ok()
    );
    let zero = peer.request(command::NEXT_TRANSACTIONS, next(0));
    assert_eq!(code(prover.prove(zero)), "bad_message");
}

#[test]
fn subscriptions_name_addresses_channels_and_keys() {
    let mut prover = prover();
    let peer = Peer::ed25519(1);
    let address = Address::common(&peer.pem).to_string();
    let topics = [Topic::Address(address.clone()), Topic::Channel("c".into())];
    let text = draft::subscribe(&topics, &[&peer.pem], Some(0), &peer.pem, None);
    let Ok(Proven::Query(query)) = prover.prove(peer.request(command::SUBSCRIBE, text)) else {
        panic!()
    };
    let [address, channel] = topics;
    assert_eq!(
        query.ask,
        Ask::Subscribe {
            topics: vec![address, channel, Topic::Owner(peer.key().hash())],
            from: Some(0),
        }
    );
    let none = draft::subscribe(&[], &[], None, &peer.pem, None);
    assert_eq!(
        code(prover.prove(peer.request(command::SUBSCRIBE, none))),
        "bad_message"
    );
    let many = vec![Topic::Channel("c".into()); 257];
    let many = draft::subscribe(&many, &[], None, &peer.pem, None);
    assert_eq!(
        code(prover.prove(peer.request(command::SUBSCRIBE, many))),
        "bad_message"
    );
    let leave = draft::unsubscribe("s", &peer.pem, None);
    assert!(
        prover
            .prove(peer.request(command::UNSUBSCRIBE, leave))
            .is_ok()
    );
}

#[test]
fn nonces_of_queries_count_once_within_bounded_memory() {
    let mut nonces = Nonces::new(3);
    let key = Peer::ed25519(1).key().hash();
    let mut admit = |nonce: u8, time: u64, now: u64| {
        let fresh = Fresh {
            time: BlockTime(time),
            nonce: [nonce; 16],
        };
        let admitted = nonces.admit(&key, &fresh, BlockTime(now));
        admitted.map_err(|refusal| refusal.code.as_str())
    };
    let now = START;
    assert_eq!(admit(1, now, now), Ok(()));
    assert_eq!(admit(1, now, now), Err("replayed"));
    assert_eq!(admit(2, now - 300_001, now), Err("stale"));
    assert_eq!(admit(2, now - 300_000, now), Ok(()));
    assert_eq!(admit(1, now + 600_000, now + 600_000), Err("replayed"));
    assert_eq!(admit(1, now + 600_001, now + 600_001), Ok(()));
    for nonce in 10..14 {
        assert_eq!(admit(nonce, now + 600_002, now + 600_002), Ok(()));
    }
}
