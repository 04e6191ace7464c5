//! What an entry of a container's ledger must be: the transactions of section 2.4 and their fields.

use super::{canonical::has_fractions, instant::Day};
use crate::json::{Object, Value};

/// The `@type` of an entry.
pub const ISSUE_TRANSACTION: &str =
    "https://github.com/Sirius-social/TMTM/tree/master/transactions/1.0/issue-transaction";

/// The documents that an entry can be about. The first letter of `Сonnaissement` is the Cyrillic one
/// wherever the original writes it; the Latin one is taken too.
pub const DOCUMENT_TYPES: [&str; 10] = [
    "WayBill",
    "Invoice",
    "PackList",
    "QualityPassport",
    "GoodsDeclaration",
    "WayBillRelease",
    "Сonnaissement",
    "Manifest",
    "CargoPlan",
    "LogisticInfo",
];

/// How much a network demands of the entries of its ledgers. Each level demands what those before it
/// do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Documents {
    /// Any JSON object (section 4.1).
    Any,
    /// What the original checks: the members of section 2.4 are there.
    Compatible,
    /// Their values make sense too: types, known documents, dates, digests, no fractions.
    Strict,
}

impl Documents {
    /// The name in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Documents::Any => "any",
            Documents::Compatible => "compatible",
            Documents::Strict => "strict",
        }
    }

    /// The level of a name.
    pub fn from_name(name: &str) -> Option<Documents> {
        [Documents::Any, Documents::Compatible, Documents::Strict]
            .into_iter()
            .find(|level| level.as_str() == name)
    }
}

/// What is wrong with an entry: a sentence that says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// Checks an entry for ledgers with these names, in the order of section 2.4.
///
/// # Errors
/// The first fault.
pub fn check(entry: &Object, ledgers: &[&str], level: Documents) -> Result<(), Fault> {
    if level == Documents::Any {
        return Ok(());
    }
    let strict = level == Documents::Strict;
    let kind = required(entry, "@type")?;
    if kind.as_str() != Some(ISSUE_TRANSACTION) {
        return fault(format!("\"@type\" of an entry is \"{ISSUE_TRANSACTION}\""));
    }
    check_ledger_name(entry, ledgers)?;
    check_waybill(entry, strict)?;
    check_attachments(entry, strict)?;
    const REQUIRED: [&str; 7] = [
        "@id",
        "no",
        "date",
        "cargo",
        "departure_station",
        "arrival_station",
        "doc_type",
    ];
    for name in REQUIRED {
        let value = required(entry, name)?;
        if strict && value.as_str().is_none() {
            return fault(format!("\"{name}\" must be a text"));
        }
    }
    if strict {
        let date = text(entry, "date");
        if Day::parse(date).is_none() {
            return fault(format!(
                "\"date\" must be a date as DD.MM.YY or DD.MM.YYYY, not \"{}\"",
                shortened(date)
            ));
        }
        let document = text(entry, "doc_type");
        if !is_document_type(document) {
            return fault(format!(
                "\"doc_type\" \"{}\" is none of {}",
                shortened(document),
                DOCUMENT_TYPES.join(", ")
            ));
        }
        if entry.as_written().any(|(_, value)| has_fractions(value)) {
            return fault("numbers must be integers: write a fraction as a text");
        }
    }
    Ok(())
}

/// Whether a document type is one of [`DOCUMENT_TYPES`], whichever alphabet its first letter is from.
pub fn is_document_type(text: &str) -> bool {
    let folded = |text: &str| text.replacen('\u{421}', "C", 1);
    DOCUMENT_TYPES
        .iter()
        .any(|known| folded(known) == folded(text))
}

/// The names in `ledger.name` of an entry: one, or several of an array.
pub fn ledger_names(entry: &Object) -> Option<Vec<&str>> {
    match entry.get("ledger")?.as_object()?.get("name")? {
        Value::String(name) => Some(vec![name]),
        Value::Array(names) => names.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// How long something is on its way: whole days from the `date` of the first entry to `today`
/// (section 1.3). `None` when that is no date.
pub fn days_in_way(first_date: &str, today: Day) -> Option<i64> {
    Some(today.since(Day::parse(first_date)?))
}

fn check_ledger_name(entry: &Object, ledgers: &[&str]) -> Result<(), Fault> {
    let empty = || Fault("\"ledger.name\" is missing or empty".to_owned());
    let mut names = ledger_names(entry).ok_or_else(empty)?;
    if names.is_empty() || names.iter().any(|name| name.is_empty()) {
        return Err(empty());
    }
    let mut expected = ledgers.to_vec();
    names.sort_unstable();
    expected.sort_unstable();
    if names != expected {
        return fault("\"ledger.name\" does not name the ledgers that the entry is proposed for");
    }
    Ok(())
}

fn check_waybill(entry: &Object, strict: bool) -> Result<(), Fault> {
    const NUMBERS: [&str; 2] = ["no", "wagon_no"];
    let waybill = match entry.get("waybill") {
        Some(Value::Object(waybill)) if !waybill.is_empty() => waybill,
        Some(Value::Object(_)) | None => return Ok(()),
        Some(other) if is_empty(other) && !strict => return Ok(()),
        Some(_) => return fault("\"waybill\" must be an object"),
    };
    let given = |name: &&str| waybill.get(name).is_some_and(|value| !is_empty(value));
    if !NUMBERS.iter().any(given) {
        return fault("\"waybill\" needs a \"no\" or a \"wagon_no\"");
    }
    let odd = |name: &&str| given(name) && waybill.get(name).and_then(Value::as_str).is_none();
    match NUMBERS.into_iter().find(odd) {
        Some(name) if strict => fault(format!("\"waybill.{name}\" must be a text")),
        _ => Ok(()),
    }
}

fn check_attachments(entry: &Object, strict: bool) -> Result<(), Fault> {
    let attachments = match entry.get("~attach") {
        None => return Ok(()),
        Some(Value::Array(attachments)) => attachments,
        Some(other) if is_empty(other) && !strict => return Ok(()),
        Some(_) => return fault("\"~attach\" must be an array"),
    };
    for (place, attachment) in attachments.iter().enumerate() {
        check_attachment(attachment, strict)
            .map_err(|Fault(what)| Fault(format!("attachment {}: {what}", place + 1)))?;
    }
    Ok(())
}

fn check_attachment(attachment: &Value, strict: bool) -> Result<(), Fault> {
    let Some(attachment) = attachment.as_object() else {
        return fault("it must be an object");
    };
    for name in ["mime_type", "@id", "filename"] {
        let value = required(attachment, name)?;
        if strict && value.as_str().is_none() {
            return fault(format!("\"{name}\" must be a text"));
        }
    }
    required(attachment, "data")?;
    let json = attachment
        .get("data")
        .and_then(Value::as_object)
        .and_then(|data| data.get("json"))
        .and_then(Value::as_object);
    let Some(json) = json else {
        return fault("\"data.json\" with \"url\" and \"md5\" is missing");
    };
    for name in ["url", "md5"] {
        let value = required(json, name)?;
        if strict && value.as_str().is_none() {
            return fault(format!("\"{name}\" must be a text"));
        }
    }
    if strict {
        if !is_digest(text(json, "md5"), 32) {
            return fault("\"md5\" must be 32 hexadecimal digits");
        }
        if json.get("sha256").is_some() && !is_digest(text(json, "sha256"), 64) {
            return fault("\"sha256\" must be 64 hexadecimal digits");
        }
    }
    Ok(())
}

fn is_digest(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|c| c.is_ascii_hexdigit())
}

/// A member that is there and not empty.
fn required<'e>(object: &'e Object, name: &str) -> Result<&'e Value, Fault> {
    match object.get(name) {
        Some(value) if !is_empty(value) => Ok(value),
        _ => fault(format!("\"{name}\" is missing or empty")),
    }
}

fn text<'e>(object: &'e Object, name: &str) -> &'e str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// What Python takes for false (section 2.3).
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Integer(integer) => integer.as_str() == "0",
        Value::Float(number) => matches!(number.to_string().as_str(), "0.0" | "-0.0"),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

/// Enough of a text to know it by: an answer does not grow with the question.
pub(super) fn shortened(text: &str) -> String {
    const CHARS: usize = 64;
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn fault<T>(what: impl Into<String>) -> Result<T, Fault> {
    Err(Fault(what.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const STRICT: Documents = Documents::Strict;

    fn entry() -> Object {
        let text = r#"{"@type":"https://github.com/Sirius-social/TMTM/tree/master/transactions/1.0/issue-transaction",
            "@id":"1","no":"WB-1","date":"01.03.26","cargo":"Copper rod","departure_station":"Balkhash",
            "arrival_station":"Aktau-Port","doc_type":"WayBill","ledger":{"name":"CONT-1"},
            "waybill":{"no":"118-K"},"~attach":[{"@id":"document-0","mime_type":"application/pdf",
            "filename":"wb.pdf","data":{"json":{"url":"https://node.example/content/0f.pdf",
            "md5":"6a2f41a3c54c8a3b7dd9c6c0c2d8f3aa"}}}]}"#;
        text.parse::<Value>().unwrap().as_object().unwrap().clone()
    }

    fn with(name: &str, value: &str) -> Object {
        let mut entry = entry();
        entry.insert(name, value.parse().unwrap());
        entry
    }

    fn verdict(entry: &Object, level: Documents) -> Result<(), String> {
        check(entry, &["CONT-1"], level).map_err(|Fault(what)| what)
    }

    #[test]
    fn a_whole_entry_is_taken_at_every_level() {
        for level in [Documents::Any, Documents::Compatible, STRICT] {
            assert_eq!(verdict(&entry(), level), Ok(()));
            assert_eq!(Documents::from_name(level.as_str()), Some(level));
        }
        assert_eq!(verdict(&Object::new(), Documents::Any), Ok(()));
    }

    #[test]
    fn each_missing_or_empty_attribute_is_named() {
        for name in [
            "@type",
            "@id",
            "no",
            "date",
            "cargo",
            "departure_station",
            "arrival_station",
            "doc_type",
        ] {
            let expected = Err(format!("\"{name}\" is missing or empty"));
            let mut without = entry();
            without.remove(name);
            assert_eq!(verdict(&without, Documents::Compatible), expected);
            for empty in ["\"\"", "0", "null", "false", "[]", "{}", "0.0"] {
                assert_eq!(verdict(&with(name, empty), Documents::Compatible), expected);
            }
        }
        for ledger in [
            "{}",
            "\"CONT-1\"",
            r#"{"name":""}"#,
            r#"{"name":[]}"#,
            r#"{"name":[1]}"#,
        ] {
            assert_eq!(
                verdict(&with("ledger", ledger), Documents::Compatible),
                Err("\"ledger.name\" is missing or empty".to_owned())
            );
        }
    }

    #[test]
    fn faults_are_found_in_the_order_of_the_protocol() {
        let mut entry = with("waybill", r#"{"other":1}"#);
        for name in ["no", "~attach", "ledger", "@type"] {
            entry.insert(name, Value::Null);
        }
        let mut seen = Vec::new();
        for (name, right) in [
            ("@type", "@type"),
            ("ledger", "ledger"),
            ("waybill", "waybill"),
            ("~attach", "~attach"),
            ("no", "no"),
        ] {
            seen.push(verdict(&entry, STRICT).unwrap_err());
            entry.insert(name, super::tests::entry().get(right).unwrap().clone());
        }
        assert_eq!(
            seen,
            [
                "\"@type\" is missing or empty",
                "\"ledger.name\" is missing or empty",
                "\"waybill\" needs a \"no\" or a \"wagon_no\"",
                "\"~attach\" must be an array",
                "\"no\" is missing or empty",
            ]
        );
        assert_eq!(verdict(&entry, STRICT), Ok(()));
    }

    #[test]
    fn the_document_type_with_a_cyrillic_letter_is_taken_with_a_latin_one_too() {
        assert_eq!(DOCUMENT_TYPES[6].chars().next(), Some('\u{421}'));
        for document in ["\u{421}onnaissement", "Connaissement", "LogisticInfo"] {
            assert_eq!(
                verdict(&with("doc_type", &format!("\"{document}\"")), STRICT),
                Ok(())
            );
        }
        let unknown = with("doc_type", "\"Wish\"");
        assert!(
            verdict(&unknown, STRICT)
                .unwrap_err()
                .contains("none of WayBill, Invoice")
        );
        assert_eq!(verdict(&unknown, Documents::Compatible), Ok(()));
    }

    #[test]
    fn a_waybill_needs_a_number_of_its_own_or_of_its_wagon_unless_it_is_empty() {
        for good in [
            "{}",
            r#"{"no":"1"}"#,
            r#"{"wagon_no":"2"}"#,
            r#"{"no":"","wagon_no":"2"}"#,
        ] {
            assert_eq!(verdict(&with("waybill", good), STRICT), Ok(()), "{good}");
        }
        for bad in [
            r#"{"no":"","wagon_no":""}"#,
            r#"{"x":1}"#,
            r#"{"no":1}"#,
            "1",
            "null",
        ] {
            assert!(verdict(&with("waybill", bad), STRICT).is_err(), "{bad}");
        }
    }

    #[test]
    fn attachments_need_a_place_and_a_digest() {
        let attachment = |json: &str| {
            with(
                "~attach",
                &format!(
                    r#"[{{"@id":"d","mime_type":"a/b","filename":"f","data":{{"json":{json}}}}}]"#
                ),
            )
        };
        let md5 = "6a2f41a3c54c8a3b7dd9c6c0c2d8f3aa";
        assert_eq!(
            verdict(
                &attachment(&format!(r#"{{"url":"u","md5":"{md5}"}}"#)),
                STRICT
            ),
            Ok(())
        );
        let with_sha256 = format!(r#"{{"url":"u","md5":"{md5}","sha256":"{md5}{md5}"}}"#);
        assert_eq!(verdict(&attachment(&with_sha256), STRICT), Ok(()));
        let bad_sha256 = format!(r#"{{"url":"u","md5":"{md5}","sha256":"{md5}"}}"#);
        for bad in [
            r#"{"url":"u"}"#,
            r#"{"md5":"x"}"#,
            r#"{"url":"u","md5":"x"}"#,
            bad_sha256.as_str(),
            "{}",
            "1",
        ] {
            assert!(
                verdict(&attachment(bad), STRICT)
                    .unwrap_err()
                    .starts_with("attachment 1: "),
                "{bad}"
            );
        }
        assert_eq!(
            verdict(
                &attachment(r#"{"url":"u","md5":"x"}"#),
                Documents::Compatible
            ),
            Ok(())
        );
        for bad in [
            "[1]",
            "[{}]",
            r#"[{"@id":"d","mime_type":"a","filename":"f","data":{"base64":"eA=="}}]"#,
        ] {
            assert!(
                verdict(&with("~attach", bad), Documents::Compatible).is_err(),
                "{bad}"
            );
        }
        let mut without = entry();
        without.remove("~attach");
        assert_eq!(verdict(&without, STRICT), Ok(()));
    }

    #[test]
    fn an_entry_names_exactly_the_ledgers_that_it_is_proposed_for() {
        let several = with("ledger", r#"{"name":["CONT-2","CONT-1"]}"#);
        assert_eq!(check(&several, &["CONT-1", "CONT-2"], STRICT), Ok(()));
        assert!(check(&several, &["CONT-1"], STRICT).is_err());
        assert!(check(&entry(), &["CONT-2"], STRICT).is_err());
        assert!(check(&entry(), &["CONT-1", "CONT-2"], STRICT).is_err());
    }

    #[test]
    fn dates_and_fractions_are_checked_in_strict_mode_only() {
        for (name, value) in [
            ("date", "\"1 March\""),
            ("date", "\"31.02.26\""),
            ("qty", "1.5"),
            ("no", "7"),
        ] {
            assert!(verdict(&with(name, value), STRICT).is_err(), "{name}");
            assert_eq!(
                verdict(&with(name, value), Documents::Compatible),
                Ok(()),
                "{name}"
            );
        }
        assert!(verdict(&with("deep", r#"{"a":[{"b":1e3}]}"#), STRICT).is_err());
        assert_eq!(verdict(&with("qty", "3"), STRICT), Ok(()));
    }

    #[test]
    fn days_on_the_way_are_counted_from_the_first_date() {
        let today = Day::of_date(2026, 3, 13).unwrap();
        assert_eq!(days_in_way("01.03.26", today), Some(12));
        assert_eq!(days_in_way("14.03.2026", today), Some(-1));
        assert_eq!(days_in_way("tomorrow", today), None);
    }
}
