//! What clients send over the socket, read and checked (sections 2.2 to 2.5), and what they are told.

use daybook_ledger::{
    consortium::{
        DEPTH_MAX, Did, Documents, LEDGER_NAME_CHARS_MAX, METADATA, Policy, REQUEST_ID_BYTES_MAX,
        canon_object, container,
    },
    json::{Object, Value},
};

use crate::{
    disk::PlanKind,
    json::object,
    users::{random, sha256},
};

/// What every `@type` of this channel begins with.
const TYPES: &str = "https://github.com/Sirius-social/TMTM/tree/master/transactions/1.0/";
/// Seconds that an operation may take unless its request says otherwise (section 2.3).
const TTL_SECONDS_DEFAULT: u64 = 30;
/// Characters of a field of a plan document (section 1.4).
const PLAN_FIELD_CHARS_MAX: usize = 128;
/// Attachments of a plan document.
const PLAN_ATTACHMENTS_MAX: usize = 100;

/// The fields of a plan document, in the order of their check.
const PLAN_FIELDS: [&str; 9] = [
    "no",
    "date",
    "cargo_name",
    "depart_station",
    "arrival_station",
    "month",
    "year",
    "tonnage",
    "shipper",
];

/// A request that was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    /// `@id`: the client's name for it.
    pub(crate) id: String,
    /// Tells whether a request of the same name is the same.
    pub(crate) digest: String,
    pub(crate) wanted: Wanted,
    pub(crate) ttl_ms: u64,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    Create {
        ledger: String,
        entries: Vec<Object>,
        /// With whom; `None` for the group of the settings.
        group: Option<Vec<Did>>,
        policy: Option<Policy>,
    },
    Issue {
        ledgers: Vec<String>,
        /// `ledger.name` as it was written: a text or an array.
        name: Value,
        entry: Object,
    },
    Plan {
        kind: PlanKind,
        message: Object,
    },
}

/// Why a request is not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    pub(crate) explain: String,
    /// The request's `@id`, if it has one.
    pub(crate) thread: Option<String>,
}

/// The request was refused before any consensus step.
pub(crate) const REQUEST_ERROR: &str = "request_error";
/// Anything later.
pub(crate) const PROCESSING_ERROR: &str = "request_processing_error";

type Checked<T> = Result<T, String>;

/// Reads one message. `ttl_seconds_max` bounds `time_to_live`, `level` is what the network demands of
/// entries.
pub(crate) fn read(text: &[u8], level: Documents, ttl_seconds_max: u64) -> Result<Message, Fault> {
    let fault = |explain: String, thread: Option<String>| Fault {
        code: REQUEST_ERROR,
        explain,
        thread,
    };
    let value = Value::parse(text, DEPTH_MAX)
        .map_err(|error| fault(format!("the message is no JSON: {error}"), None))?;
    let Value::Object(message) = value else {
        return Err(fault("the message must be an object".to_owned(), None));
    };
    let thread = message
        .get("@id")
        .and_then(Value::as_str)
        .filter(|id| id.len() <= REQUEST_ID_BYTES_MAX)
        .map(str::to_owned);
    // A network that takes any object still gets what this channel promises.
    let level = level.max(Documents::Compatible);
    let kind = message.get("@type").and_then(Value::as_str);
    let read = match kind.and_then(|kind| kind.strip_prefix(TYPES)) {
        Some("create-ledger") => create(&message, level, ttl_seconds_max),
        Some("issue-transaction") => issue(&message, level, ttl_seconds_max),
        Some("gu-11") => plan(PlanKind::Gu11, &message),
        Some("gu-12") => plan(PlanKind::Gu12, &message),
        _ => Err(format!(
            "\"@type\" must be \"{TYPES}\" followed by create-ledger, issue-transaction, gu-11 or gu-12"
        )),
    };
    let (id, wanted, ttl_ms) = match read {
        Ok(read) => read,
        Err(explain) => {
            // The original carried such a genesis out as far as its ledger's rules.
            let code = match explain.contains(METADATA)
                && kind.is_some_and(|k| k.ends_with("create-ledger"))
            {
                true => PROCESSING_ERROR,
                false => REQUEST_ERROR,
            };
            return Err(Fault {
                code,
                explain,
                thread,
            });
        }
    };
    let mut same = message;
    same.remove("time_to_live");
    Ok(Message {
        id,
        digest: hex::encode(sha256(canon_object(&same).as_bytes())),
        wanted,
        ttl_ms,
    })
}

fn create(message: &Object, level: Documents, ttl_max: u64) -> Checked<(String, Wanted, u64)> {
    let ledger = text(message, "name")?;
    if ledger.chars().count() > LEDGER_NAME_CHARS_MAX {
        return Err(format!(
            "\"name\" has more than {LEDGER_NAME_CHARS_MAX} characters"
        ));
    }
    let id = request_id(message)?;
    let ttl_ms = ttl_ms(message, ttl_max)?;
    let genesis = match required(message, "genesis")? {
        Value::Array(entries) => entries,
        _ => return Err("\"genesis\" must be an array of transactions".to_owned()),
    };
    let mut entries = Vec::new();
    for (place, entry) in (1..).zip(genesis) {
        let Value::Object(entry) = entry else {
            return Err(format!("genesis entry {place} must be an object"));
        };
        let of_entry = |what: String| format!("genesis entry {place}: {what}");
        container::check(entry, &[&ledger], level).map_err(|fault| of_entry(fault.0))?;
        no_metadata(entry).map_err(of_entry)?;
        entries.push(entry.clone());
    }
    let group = match message.get("group") {
        None => None,
        Some(Value::Array(dids)) => Some(
            dids.iter()
                .map(|did| did.as_str().and_then(|did| did.parse().ok()))
                .collect::<Option<Vec<Did>>>()
                .ok_or("\"group\" must be an array of DIDs")?,
        ),
        Some(_) => return Err("\"group\" must be an array of DIDs".to_owned()),
    };
    let policy = match message.get("policy") {
        None => None,
        Some(policy) => Some(read_policy(policy).ok_or(
            "\"policy\" must be \"unanimous\" or an object with \"at_least\" and a number",
        )?),
    };
    let wanted = Wanted::Create {
        ledger,
        entries,
        group,
        policy,
    };
    Ok((id, wanted, ttl_ms))
}

/// Reads `"unanimous"` or `{"at_least": 3}`.
pub(crate) fn read_policy(value: &Value) -> Option<Policy> {
    if value.as_str() == Some("unanimous") {
        return Some(Policy::Unanimous);
    }
    let count = value.as_object()?.get("at_least")?.as_u64()?;
    Some(Policy::AtLeast(u32::try_from(count).ok()?))
}

fn issue(message: &Object, level: Documents, ttl_max: u64) -> Checked<(String, Wanted, u64)> {
    let mut entry = message.clone();
    entry.remove("time_to_live");
    let names = container::ledger_names(&entry).unwrap_or_default();
    let ledgers: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let borrowed: Vec<&str> = ledgers.iter().map(String::as_str).collect();
    container::check(&entry, &borrowed, level).map_err(|fault| fault.0)?;
    let id = request_id(&entry)?;
    no_metadata(&entry)?;
    let ttl_ms = ttl_ms(message, ttl_max)?;
    let name = entry
        .get("ledger")
        .and_then(Value::as_object)
        .and_then(|ledger| ledger.get("name"))
        .cloned()
        .unwrap_or(Value::Null);
    let wanted = Wanted::Issue {
        ledgers,
        name,
        entry,
    };
    Ok((id, wanted, ttl_ms))
}

/// Checks a plan document as its sender made it; receivers check it again.
pub(crate) fn check_plan(kind: PlanKind, message: &Object) -> Checked<()> {
    let present = |name: &str| match message.get(name) {
        None => Err(format!("\"{name}\" is missing")),
        Some(Value::String(text)) if text.chars().count() > PLAN_FIELD_CHARS_MAX => Err(format!(
            "\"{name}\" has more than {PLAN_FIELD_CHARS_MAX} characters"
        )),
        Some(Value::String(_)) => Ok(()),
        Some(_) => Err(format!("\"{name}\" must be a text")),
    };
    request_id(message)?;
    PLAN_FIELDS.into_iter().try_for_each(present)?;
    if kind == PlanKind::Gu11 {
        present("decade")?;
    }
    let attachments = match message.get("~attach") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(attachments)) => attachments,
        Some(_) => return Err("\"~attach\" must be an array".to_owned()),
    };
    if attachments.len() > PLAN_ATTACHMENTS_MAX {
        return Err(format!(
            "there are more than {PLAN_ATTACHMENTS_MAX} attachments"
        ));
    }
    for (place, attachment) in (1..).zip(attachments) {
        plan_attachment(attachment).ok_or_else(|| {
            format!(
                "attachment {place} must have \"filename\", \"mime_type\" and \"data.json\" with \"url\" and \"md5\""
            )
        })?;
    }
    Ok(())
}

/// A plan document out of a form, without its kind.
pub(crate) struct PlanForm(Object);

/// Reads the fields of a form (section 1.7). `decade` is a field of both kinds there, and attachments are
/// the text of an array.
///
/// # Errors
/// What is wrong with each field.
pub(crate) fn plan_of_form(fields: &Object) -> Result<PlanForm, Object> {
    let mut errors = Object::new();
    let mut message = Object::new();
    message.insert("@id", hex::encode(random::<16>()).into());
    for name in PLAN_FIELDS.into_iter().chain(["decade"]) {
        match fields.get(name) {
            Some(Value::String(text)) if !text.is_empty() => {
                if text.chars().count() > PLAN_FIELD_CHARS_MAX {
                    let words =
                        format!("Ensure this value has at most {PLAN_FIELD_CHARS_MAX} characters.");
                    errors.insert(name, words.into());
                }
                message.insert(name, text.as_str().into());
            }
            _ => errors.insert(name, "This field is required.".into()),
        }
    }
    let attachments = fields.get("attachments").and_then(Value::as_str);
    if let Some(attachments) = attachments.filter(|text| !text.trim().is_empty()) {
        let read = Value::parse(attachments.as_bytes(), DEPTH_MAX).ok();
        let read = read.as_ref().and_then(Value::as_array).and_then(|read| {
            read.iter()
                .map(|attachment| {
                    let attachment = attachment.as_object()?;
                    let text = |name: &str| Some(Value::from(attachment.get(name)?.as_str()?));
                    let json = object([("url", text("url")?), ("md5", text("md5")?)]);
                    Some(object([
                        ("filename", text("filename")?),
                        ("mime_type", text("mime_type")?),
                        ("data", object([("json", json)])),
                    ]))
                })
                .collect::<Option<Vec<Value>>>()
        });
        match read {
            Some(read) => message.insert("~attach", Value::Array(read)),
            None => errors.insert(
                "attachments",
                "This must be the text of an array of objects with url, md5, filename and mime_type.".into(),
            ),
        }
    }
    match errors.is_empty() {
        true => Ok(PlanForm(message)),
        false => Err(errors),
    }
}

impl PlanForm {
    /// The request that sends it.
    pub(crate) fn asking(self, kind: PlanKind) -> Message {
        let PlanForm(mut message) = self;
        message.insert("@type", format!("{TYPES}{}", kind.name()).into());
        let id = message.get("@id").and_then(Value::as_str).unwrap_or("");
        Message {
            id: id.to_owned(),
            digest: hex::encode(sha256(canon_object(&message).as_bytes())),
            wanted: Wanted::Plan { kind, message },
            ttl_ms: TTL_SECONDS_DEFAULT * 1_000,
        }
    }
}

fn plan(kind: PlanKind, message: &Object) -> Checked<(String, Wanted, u64)> {
    check_plan(kind, message)?;
    let wanted = Wanted::Plan {
        kind,
        message: message.clone(),
    };
    Ok((request_id(message)?, wanted, TTL_SECONDS_DEFAULT * 1_000))
}

/// An attachment of a plan document as it is listed (section 1.4).
fn plan_attachment(attachment: &Value) -> Option<Value> {
    let attachment = attachment.as_object()?;
    let json = attachment
        .get("data")?
        .as_object()?
        .get("json")?
        .as_object()?;
    let text = |object: &Object, name: &str| Some(Value::from(object.get(name)?.as_str()?));
    Some(object([
        ("url", text(json, "url")?),
        ("md5", text(json, "md5")?),
        ("filename", text(attachment, "filename")?),
        ("mime_type", text(attachment, "mime_type")?),
    ]))
}

/// A plan document as it is listed (section 1.4).
pub(crate) fn listed_plan(kind: PlanKind, message: &Object) -> Object {
    let mut plan = Object::new();
    for name in PLAN_FIELDS {
        plan.insert(name, message.get(name).cloned().unwrap_or(Value::Null));
    }
    let attachments = message.get("~attach").and_then(Value::as_array);
    let attachments = attachments.unwrap_or(&[]).iter();
    plan.insert(
        "attachments",
        Value::Array(attachments.filter_map(plan_attachment).collect()),
    );
    if kind == PlanKind::Gu11 {
        let decade = message.get("decade").cloned();
        plan.insert("decade", decade.unwrap_or(Value::Null));
    }
    plan
}

fn required<'m>(message: &'m Object, name: &str) -> Checked<&'m Value> {
    match message.get(name) {
        Some(value) if !container::is_empty(value) => Ok(value),
        _ => Err(format!("\"{name}\" is missing or empty")),
    }
}

fn text(message: &Object, name: &str) -> Checked<String> {
    let value = required(message, name)?;
    let text = value.as_str().map(str::to_owned);
    text.ok_or_else(|| format!("\"{name}\" must be a text"))
}

fn request_id(message: &Object) -> Checked<String> {
    let id = text(message, "@id")?;
    if id.len() > REQUEST_ID_BYTES_MAX {
        return Err(format!(
            "\"@id\" has more than {REQUEST_ID_BYTES_MAX} bytes"
        ));
    }
    Ok(id)
}

fn no_metadata(entry: &Object) -> Checked<()> {
    match entry.get(METADATA) {
        None => Ok(()),
        Some(Value::Object(empty)) if empty.is_empty() => Ok(()),
        Some(_) => Err(format!(
            "\"{METADATA}\" is the ledger's: leave it out or empty"
        )),
    }
}

fn ttl_ms(message: &Object, seconds_max: u64) -> Checked<u64> {
    let Some(ttl) = message.get("time_to_live") else {
        return Ok(TTL_SECONDS_DEFAULT.min(seconds_max) * 1_000);
    };
    let wrong =
        || format!("\"time_to_live\" must be a number of seconds above 0 and up to {seconds_max}");
    let seconds: f64 = match ttl {
        Value::Integer(seconds) => seconds.as_str().parse().map_err(|_| wrong())?,
        Value::Float(seconds) => seconds.to_string().parse().map_err(|_| wrong())?,
        _ => return Err(wrong()),
    };
    if !(seconds > 0.0 && seconds <= seconds_max as f64) {
        return Err(wrong());
    }
    Ok((seconds * 1_000.0).ceil() as u64)
}

/// A message to the client: what happened, with an `@id` of its own.
pub(crate) fn told(event: &Value, thread: Option<&str>) -> Value {
    let mut message = event.as_object().cloned().unwrap_or_default();
    message.insert("@id", hex::encode(random::<16>()).into());
    if let Some(thread) = thread {
        message.insert("~thread", object([("thid", thread.into())]));
    }
    Value::Object(message)
}

/// A `progress` without its `@id`; `value` is 0 to 100.
pub(crate) fn progress(value: Option<u64>, words: &str) -> Value {
    let mut event = Object::new();
    event.insert("@type", format!("{TYPES}progress").into());
    if let Some(value) = value {
        event.insert("progress", value.into());
    }
    event.insert("message", words.into());
    Value::Object(event)
}

/// The last `progress` of a success.
pub(crate) fn done(ledger: Value) -> Value {
    object([
        ("@type", format!("{TYPES}progress").into()),
        ("ledger", ledger),
        ("done", true.into()),
    ])
}

/// The only event of a plan document that was sent. What the original's clients look at comes first.
pub(crate) fn plan_done(words: &str) -> Value {
    object([
        ("@type", format!("{TYPES}progress").into()),
        ("progress", 100u64.into()),
        ("message", words.into()),
        ("done", true.into()),
    ])
}

/// A `problem_report` without its `@id`.
pub(crate) fn problem(code: &str, explain: &str, stage: &str, participants: &[Did]) -> Value {
    let participants = participants.iter().map(|did| did.to_string().into());
    object([
        ("@type", format!("{TYPES}problem_report").into()),
        ("problem-code", code.into()),
        ("explain", explain.into()),
        ("stage", stage.into()),
        ("participants", Value::Array(participants.collect())),
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ENTRY: &str = r#"{"@type":"https://github.com/Sirius-social/TMTM/tree/master/transactions/1.0/issue-transaction",
        "@id":"e1","no":"WB-1","date":"01.03.26","cargo":"Copper rod","departure_station":"Balkhash",
        "arrival_station":"Aktau-Port","doc_type":"WayBill","ledger":{"name":"CONT-1"},"waybill":{"no":"1"}}"#;

    fn parse(text: &str) -> Object {
        text.parse::<Value>().unwrap().as_object().unwrap().clone()
    }

    fn read_object(object: &Object) -> Result<Message, Fault> {
        read(canon_object(object).as_bytes(), Documents::Strict, 600)
    }

    fn creation() -> Object {
        let mut message = parse(r#"{"@id":"c1","name":"CONT-1","time_to_live":20}"#);
        message.insert("@type", format!("{TYPES}create-ledger").into());
        message.insert("genesis", Value::Array(vec![Value::Object(parse(ENTRY))]));
        message
    }

    fn gu11() -> Object {
        let mut message = parse(
            r#"{"@id":"g1","no":"1","date":"","cargo_name":"x","depart_station":"a","arrival_station":"b",
            "month":"March","year":"2026","tonnage":"22","shipper":"s","decade":"2",
            "~attach":[{"filename":"f","mime_type":"m","data":{"json":{"url":"u","md5":"d"}}}]}"#,
        );
        message.insert("@type", format!("{TYPES}gu-11").into());
        message
    }

    fn explains(message: &Object) -> String {
        let fault = read_object(message).unwrap_err();
        assert_eq!(fault.code, REQUEST_ERROR);
        fault.explain
    }

    #[test]
    fn what_is_no_known_request_is_a_request_error() {
        for text in [
            &b"{"[..], b"\xff", b"5", b"null", b"[]", b"\"x\"", b"true", b"{}",
            br#"{"@type":"https://github.com/Sirius-social/TMTM/tree/master/transactions/1.0/progress"}"#,
        ] {
            let fault = read(text, Documents::Strict, 600).unwrap_err();
            assert_eq!(fault.code, REQUEST_ERROR);
            assert!(!fault.explain.is_empty());
        }
        let fault = read(br#"{"@id":"mine"}"#, Documents::Strict, 600).unwrap_err();
        assert_eq!(fault.thread.as_deref(), Some("mine"));
    }

    #[test]
    fn each_attribute_of_a_creation_is_there_and_not_empty() {
        assert!(read_object(&creation()).is_ok());
        for name in ["name", "@id", "genesis"] {
            let mut without = creation();
            without.remove(name);
            assert_eq!(
                explains(&without),
                format!("\"{name}\" is missing or empty")
            );
            for empty in ["\"\"", "0", "null", "[]", "{}", "false"] {
                let mut message = creation();
                message.insert(name, empty.parse().unwrap());
                assert_eq!(
                    explains(&message),
                    format!("\"{name}\" is missing or empty")
                );
            }
        }
        for genesis in ["{\"a\":1}", "\"x\"", "[1]", "[{\"a\":1}]"] {
            let mut message = creation();
            message.insert("genesis", genesis.parse().unwrap());
            explains(&message);
        }
    }

    #[test]
    fn the_time_to_live_is_a_number_above_nothing_and_has_a_cap() {
        for (ttl, ms) in [("20", 20_000), ("0.5", 500), ("600", 600_000)] {
            let mut message = creation();
            message.insert("time_to_live", ttl.parse().unwrap());
            assert_eq!(read_object(&message).unwrap().ttl_ms, ms);
        }
        let mut message = creation();
        message.remove("time_to_live");
        assert_eq!(read_object(&message).unwrap().ttl_ms, 30_000);
        for ttl in [
            "0",
            "-1",
            "601",
            "\"20\"",
            "null",
            "[]",
            "1e300",
            "100000000000000000000",
        ] {
            message.insert("time_to_live", ttl.parse().unwrap());
            assert!(explains(&message).contains("time_to_live"), "{ttl}");
        }
    }

    #[test]
    fn a_genesis_entry_is_for_its_own_ledger_and_has_no_metadata() {
        let with = |name: &str, value: &str| {
            let mut entry = parse(ENTRY);
            entry.insert(name, value.parse().unwrap());
            let mut message = creation();
            message.insert("genesis", Value::Array(vec![Value::Object(entry)]));
            read_object(&message)
        };
        assert!(with("ledger", r#"{"name":"CONT-2"}"#).is_err());
        assert!(with(METADATA, "{}").is_ok());
        assert_eq!(
            with(METADATA, r#"{"seqNo":1}"#).unwrap_err().code,
            PROCESSING_ERROR
        );
    }

    #[test]
    fn a_ledger_can_say_who_must_agree() {
        let mut message = creation();
        message.insert("policy", r#"{"at_least":3}"#.parse().unwrap());
        message.insert("group", r#"["J7CUQvLhdTVhye2SHg6w9K"]"#.parse().unwrap());
        message.insert("participants", "17".parse().unwrap());
        let Wanted::Create { group, policy, .. } = read_object(&message).unwrap().wanted else {
            panic!("a creation");
        };
        assert_eq!(policy, Some(Policy::AtLeast(3)));
        assert_eq!(group.unwrap().len(), 1);
        for (name, wrong) in [("policy", "3"), ("group", "[1]"), ("group", "\"x\"")] {
            let mut message = creation();
            message.insert(name, wrong.parse().unwrap());
            assert!(explains(&message).contains(name));
        }
    }

    #[test]
    fn an_issue_names_one_ledger_or_several_and_the_same_request_has_the_same_digest() {
        let one = read_object(&parse(ENTRY)).unwrap();
        let mut later = parse(ENTRY);
        later.insert("time_to_live", 7u64.into());
        let later = read_object(&later).unwrap();
        assert_eq!(one.digest, later.digest);
        assert_eq!((one.ttl_ms, later.ttl_ms), (30_000, 7_000));
        let Wanted::Issue { entry, .. } = &later.wanted else {
            panic!("an issue");
        };
        assert!(entry.get("time_to_live").is_none());
        let mut several = parse(ENTRY);
        several.insert("ledger", r#"{"name":["B","A"]}"#.parse().unwrap());
        let several = read_object(&several).unwrap();
        assert_ne!(one.digest, several.digest);
        let Wanted::Issue { ledgers, .. } = several.wanted else {
            panic!("an issue");
        };
        assert_eq!(ledgers, ["B", "A"]);
        for ledger in ["\"CONT-1\"", "{}", r#"{"name":""}"#, r#"{"name":[]}"#] {
            let mut message = parse(ENTRY);
            message.insert("ledger", ledger.parse().unwrap());
            assert_eq!(explains(&message), "\"ledger.name\" is missing or empty");
        }
        let mut message = parse(ENTRY);
        message.insert(METADATA, r#"{"seqNo":1}"#.parse().unwrap());
        explains(&message);
    }

    #[test]
    fn a_plan_document_has_all_its_fields_and_none_is_too_long() {
        assert!(read_object(&gu11()).is_ok());
        for name in PLAN_FIELDS.into_iter().chain(["decade", "@id"]) {
            let mut message = gu11();
            message.remove(name);
            assert!(explains(&message).contains(name));
        }
        let mut long = gu11();
        long.insert("shipper", "x".repeat(129).into());
        assert!(explains(&long).contains("128"));
        for attach in ["1", "[1]", r#"[{"filename":"f"}]"#] {
            let mut message = gu11();
            message.insert("~attach", attach.parse().unwrap());
            explains(&message);
        }
        let mut gu12 = gu11();
        gu12.insert("@type", format!("{TYPES}gu-12").into());
        gu12.remove("decade");
        gu12.remove("~attach");
        assert!(read_object(&gu12).is_ok());
    }
}
