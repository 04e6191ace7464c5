//! What the doors beside the tracker's own tell of it (section 17.11, docs/protocols/events.md).

use daybook_gateway::Token;
use serde_json::{Value, json};

use crate::{
    addresses,
    house::{Change, House, Peer, contract, cosigned, settled},
};

/// What a proxy adds, which stands for anybody.
const FROM_AFAR: (&str, &str) = ("x-forwarded-for", "203.0.113.7");
/// What the operator's clients show on a node with a token.
const WITH_TOKEN: (&str, &str) = ("authorization", "Bearer s3cret-and-long-enough");

/// Two peers who paid over a channel, and what others are not to know of it.
struct Paid {
    spend: String,
    income: String,
}

impl Paid {
    fn on(house: &House) -> Paid {
        let mut client = house.connect();
        let (payer, payee) = (Peer::ed25519(1), Peer::ed25519(2));
        let (spend, income) = addresses(&mut client, &payer, &payee);
        let terms = contract("between us", &spend, &income, 8);
        client.told(8, &cosigned(&payer, &payee, terms.clone()));
        client.told(
            524_288,
            &cosigned(&payer, &payee, settled(terms.clone(), 1, 1)),
        );
        client.told(16, &cosigned(&payer, &payee, settled(terms, 3, 1)));
        Paid { spend, income }
    }

    /// Whether a text tells of it.
    fn is_told(&self, text: &str) -> bool {
        let secrets = [
            &*self.spend,
            &*self.income,
            "between us",
            "\"4000\"",
            "\"1500\"",
        ];
        secrets.into_iter().any(|secret| text.contains(secret))
    }
}

/// Everything that the event stream tells up to now.
fn events(house: &House, query: &str, headers: &[(&'static str, &str)]) -> Vec<Value> {
    let path = format!("/api/v1/streams/events?from=0&notices=true{query}");
    let mut stream = house.connect_as(&path, headers);
    let frames = std::iter::repeat_with(|| serde_json::from_str(&stream.text()).unwrap());
    frames
        .take_while(|frame: &Value| frame["notice"] != "caught_up")
        .filter(|frame| frame.get("notice").is_none())
        .collect()
}

/// The same over server-sent events, as text.
fn server_sent(house: &House, count: usize, headers: &[(&'static str, &str)]) -> String {
    let text = house.begin_get("/api/v1/streams/events?from=0", headers, &|text| {
        text.matches("\nevent: ").count() >= count
    });
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    text
}

#[test]
fn the_event_stream_tells_others_that_something_happened_and_the_operator_what() {
    let house = House::open();
    let paid = Paid::on(&house);
    let whole = events(&house, "", &[]);
    let outline = events(&house, "", &[FROM_AFAR]);
    let text = |events: &[Value]| Value::from(events.to_vec()).to_string();
    assert!(paid.is_told(&text(&whole)));
    assert!(!paid.is_told(&text(&outline)));
    assert_eq!(whole.len(), outline.len());
    for (whole, outline) in whole.iter().zip(&outline) {
        for member in ["position", "time", "kind", "id"] {
            assert_eq!(whole[member], outline[member]);
        }
        let kind = whole["kind"].as_str().unwrap();
        let is_public =
            kind.starts_with("asset.") || ["tracker.deposit", "tracker.settings"].contains(&kind);
        if is_public {
            assert_eq!(whole, outline);
        } else {
            assert_eq!(
                (&outline["keys"], &outline["body"], &outline["outline"]),
                (&json!([]), &json!({}), &json!(true)),
                "{kind}"
            );
        }
    }
    // The frames that are kept for everybody are those of everybody.
    for headers in [&[FROM_AFAR][..], &[], &[FROM_AFAR]] {
        let text = server_sent(&house, whole.len(), headers);
        assert_eq!(paid.is_told(&text), headers.is_empty());
    }
}

#[test]
fn a_filter_finds_what_is_shown_and_an_address_of_others_is_refused() {
    let house = House::open();
    let paid = Paid::on(&house);
    let by_address = format!("&key={}", paid.spend);
    assert_eq!(events(&house, &by_address, &[]).len(), 4);
    let path = format!("/api/v1/streams/events?from=0{by_address}");
    let (status, refusal) = house.get_as(&path, &[FROM_AFAR]);
    assert_eq!(status, 403, "{refusal}");
    // A channel's id looks like any text: there is nothing under it.
    let by_channel = "&key=between%20us";
    assert_eq!(events(&house, by_channel, &[]).len(), 3);
    assert!(events(&house, by_channel, &[FROM_AFAR]).is_empty());
    // By kind everything is found, as it is shown.
    let spends = events(&house, "&kind=tracker.open_spend", &[FROM_AFAR]);
    assert_eq!(spends.len(), 1);
    assert_eq!(spends[0]["outline"], true);
}

#[test]
fn a_public_log_is_public_at_every_door() {
    let house = House::with(Change {
        gateway: |tracker| tracker.public_log = true,
        ..Change::default()
    });
    let paid = Paid::on(&house);
    assert_eq!(events(&house, "", &[FROM_AFAR]), events(&house, "", &[]));
    let by_address = format!("&key={}", paid.spend);
    assert_eq!(events(&house, &by_address, &[FROM_AFAR]).len(), 4);
    let path = format!("/console/data/object?name={}", paid.spend);
    assert_eq!(house.get_as(&path, &[FROM_AFAR]).0, 200);
}

#[test]
fn on_a_node_with_a_token_the_token_makes_the_operator() {
    let house = House::with(Change {
        node: |settings| settings.write_token = Some(Token::new("s3cret-and-long-enough")),
        ..Change::default()
    });
    let mut client = house.connect_as("/", &[WITH_TOKEN]);
    client.told(4, &Peer::ed25519(1).bare());
    let is_whole = |headers: &[(&'static str, &str)]| {
        let events = events(&house, "&kind=tracker.open_spend", headers);
        assert_eq!(events.len(), 1);
        events[0].get("outline").is_none()
    };
    assert!(!is_whole(&[]), "also on the machine itself");
    assert!(!is_whole(&[("authorization", "Bearer another")]));
    assert!(is_whole(&[WITH_TOKEN]));
    assert!(is_whole(&[WITH_TOKEN, FROM_AFAR]));
}

#[test]
fn a_page_of_somebody_else_in_the_operators_browser_is_not_the_operator() {
    let house = House::open();
    let paid = Paid::on(&house);
    let foreign = ("origin", "https://evil.example");
    let told = Value::from(events(&house, "", &[foreign])).to_string();
    assert!(!paid.is_told(&told));
}

#[test]
fn the_console_shows_what_the_stream_shows_to_the_same_person() {
    let house = House::open();
    let paid = Paid::on(&house);
    let spend = house.get(&format!("/console/data/object?name={}", paid.spend));
    assert_eq!(spend.0, 200);
    let lists = ["entries", "entries?kind=tracker", "blocks/6", "blocks/7"];
    let answers = |headers: &[(&'static str, &str)]| -> String {
        let answer = |list: &str| {
            let (status, body) = house.get_as(&format!("/console/data/{list}"), headers);
            assert_eq!(status, 200, "{body}");
            body.to_string()
        };
        let listed: String = lists.iter().map(|list| answer(list)).collect();
        // Each entry's own page.
        let entries: Value = serde_json::from_str(&answer("entries?kind=tracker")).unwrap();
        let ids = entries["entries"].as_array().unwrap().iter();
        let pages =
            ids.map(|entry| answer(&format!("transactions/{}", entry["id"].as_str().unwrap())));
        listed + &pages.collect::<String>()
    };
    assert!(paid.is_told(&answers(&[])));
    assert!(!paid.is_told(&answers(&[FROM_AFAR])));
    for question in [
        format!("object?name={}", paid.spend),
        "object?name=between%20us".to_owned(),
        format!("entries?object={}", paid.income),
    ] {
        let (status, body) = house.get_as(&format!("/console/data/{question}"), &[FROM_AFAR]);
        assert_eq!(status, 403, "{question}: {body}");
    }
    let search = format!("/console/data/search?q={}", paid.spend);
    assert_eq!(house.get(&search).1["hits"][0]["kind"], "address");
    assert_eq!(house.get_as(&search, &[FROM_AFAR]).1["hits"], json!([]));
    let live = |headers: &[(&'static str, &str)]| {
        let mut live = house.connect_as("/console/live?after=0", headers);
        let mut told = String::new();
        loop {
            let frame = live.text();
            if frame.contains("caught_up") {
                return told;
            }
            told.push_str(&frame);
        }
    };
    assert!(paid.is_told(&live(&[])));
    assert!(!paid.is_told(&live(&[FROM_AFAR])));
}
