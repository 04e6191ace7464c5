//! The wordy way: looks at a transaction member by member, in the order of sections 6.1 to 6.5, and
//! names the first thing that is wrong. It accepts exactly what the fast lane accepts.

use std::collections::BTreeSet;

use super::{Operation, Rules, Version, read::LANGUAGES};
use crate::{
    AMOUNT_MAX, PublicKey, Rejection, RejectionClass, canonical,
    condition::{self, Details, ED25519_TYPE, THRESHOLD_MAX, THRESHOLD_TYPE},
    json::{Object, Value},
    key,
};

type Checked<T = ()> = Result<T, Rejection>;

pub(super) fn check(value: &Value, rules: &Rules) -> Checked {
    let Value::Object(transaction) = value else {
        return Err(Rejection::new(
            RejectionClass::MalformedJson,
            "The body must be a JSON object: one transaction",
        ));
    };
    check_identity(transaction)?;
    let form = check_schema(transaction)?;
    check_names(&form, rules)?;
    check_inputs_and_outputs(&form, rules)?;
    check_operation(&form)?;
    check_signed(&form)
}

/// Reads condition details, in the words of the schema.
pub(crate) fn details_from_value(value: &Value) -> Checked<Details> {
    let object = object(value)?;
    let kind = member(object, "type")?;
    if kind.as_str() == Some(THRESHOLD_TYPE) {
        members(object, &["subconditions", "threshold", "type"])?;
        let threshold = member(object, "threshold")?;
        let number = match threshold {
            Value::Integer(integer) if integer.is_negative() || integer.as_str() == "0" => {
                return Err(less_than(threshold, 1));
            }
            Value::Integer(integer) => integer.as_u64(),
            other => return Err(not_of_type(other, "integer")),
        };
        let threshold = number
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| *number <= THRESHOLD_MAX)
            .ok_or_else(|| {
                let quoted = threshold.quoted();
                schema(format!(
                    "{quoted} is greater than the maximum of {THRESHOLD_MAX}"
                ))
            })?;
        let parts = member(object, "subconditions")?;
        let parts = array(parts)?
            .iter()
            .map(details_from_value)
            .collect::<Checked<Vec<_>>>()?;
        return Ok(Details::Threshold { threshold, parts });
    }
    if string(kind)? != ED25519_TYPE {
        return Err(no_match(kind, "^ed25519-sha-256$"));
    }
    members(object, &["public_key", "type"])?;
    let key = member(object, "public_key")?;
    Ok(Details::Key(public_key(key)?))
}

/// A transaction whose members have the right types.
struct Form<'v> {
    version: Version,
    operation: Operation,
    /// The `data` values, in order.
    data: Vec<&'v Value>,
    /// How many assets are named by id.
    ids: usize,
    metadata: &'v Value,
    inputs: Vec<InputForm<'v>>,
    outputs: Vec<OutputForm<'v>>,
}

struct InputForm<'v> {
    owners: Vec<PublicKey>,
    /// The text, or `None` for the details of an unsigned draft.
    fulfillment: Option<&'v str>,
    /// The named output's transaction and index.
    fulfills: Option<(&'v str, &'v Value)>,
}

struct OutputForm<'v> {
    amount: &'v str,
    details: Details,
    uri: &'v str,
    public_keys: Vec<PublicKey>,
}

// 6.1

fn check_identity(transaction: &Object) -> Checked {
    let invalid = |detail: String| Rejection::new(RejectionClass::InvalidHash, detail);
    let id = transaction
        .get("id")
        .ok_or_else(|| invalid("No transaction id found!".to_owned()))?;
    let hash = hex::encode(canonical::sha3(
        canonical::text_for_id(transaction).as_bytes(),
    ));
    if id.as_str() == Some(&hash) {
        return Ok(());
    }
    Err(invalid(format!(
        "The transaction's id '{}' isn't equal to the hash of its body, i.e. it's not valid.",
        id.quoted_bare()
    )))
}

// 6.2

const OPERATIONS_V2: [&str; 5] = [
    "CREATE",
    "TRANSFER",
    "VALIDATOR_ELECTION",
    "CHAIN_MIGRATION_ELECTION",
    "VOTE",
];
const OPERATIONS_V3: [&str; 7] = [
    "CREATE",
    "TRANSFER",
    "VALIDATOR_ELECTION",
    "CHAIN_MIGRATION_ELECTION",
    "VOTE",
    "COMPOSE",
    "DECOMPOSE",
];

fn check_schema(transaction: &Object) -> Checked<Form<'_>> {
    let version = match transaction.get("version").and_then(Value::as_str) {
        Some("3.0") => Version::V3,
        _ => Version::V2,
    };
    let (assets, operations) = match version {
        Version::V2 => ("asset", &OPERATIONS_V2[..]),
        Version::V3 => ("assets", &OPERATIONS_V3[..]),
    };
    let names = [
        "id",
        "inputs",
        "outputs",
        "operation",
        "metadata",
        assets,
        "version",
    ];
    for name in names {
        member(transaction, name)?;
    }
    if version == Version::V3 && transaction.get("script").is_some() {
        return Err(schema(
            "'script' is not supported: this node has no engine for scripts",
        ));
    }
    members(transaction, &names)?;

    if string(member(transaction, "version")?)? != version.name() {
        return Err(no_match(member(transaction, "version")?, "^2\\\\.0$"));
    }
    let operation_name = member(transaction, "operation")?;
    let operation = match operation_name.as_str() {
        Some(name) if operations.contains(&name) => name,
        _ => {
            let list: Vec<String> = operations.iter().map(|name| format!("'{name}'")).collect();
            let quoted = operation_name.quoted();
            return Err(schema(format!(
                "{quoted} is not one of [{}]",
                list.join(", ")
            )));
        }
    };
    let asset = member(transaction, assets)?;
    match (version, asset) {
        (Version::V2, Value::Object(_)) | (Version::V3, Value::Array(_) | Value::Null) => {}
        (Version::V2, other) => return Err(not_of_type(other, "object")),
        (Version::V3, other) => return Err(not_of_type(other, "array")),
    }
    let metadata = member(transaction, "metadata")?;
    match (version, metadata) {
        (_, Value::Null | Value::String(_)) => {}
        (Version::V2, Value::Object(object)) if object.is_empty() => {
            return Err(schema("{} does not have enough properties"));
        }
        (Version::V2, Value::Object(_)) => {}
        (Version::V2, other) => return Err(not_of_type(other, "object")),
        (Version::V3, other) => return Err(not_of_type(other, "string")),
    }
    let inputs = filled_array(member(transaction, "inputs")?)?;
    let input_forms = inputs
        .iter()
        .map(check_input)
        .collect::<Checked<Vec<_>>>()?;
    let outputs = filled_array(member(transaction, "outputs")?)?;
    let outputs = outputs
        .iter()
        .map(check_output)
        .collect::<Checked<Vec<_>>>()?;

    let operation = match operation {
        "CREATE" => Operation::Create,
        "TRANSFER" => Operation::Transfer,
        "COMPOSE" => Operation::Compose,
        "DECOMPOSE" => Operation::Decompose,
        _ => {
            return Err(validation(format!(
                "{operation} is refused: elections are not enabled on this node"
            )));
        }
    };
    let (data, ids) = match (version, asset) {
        (Version::V2, asset) => check_asset_v2(asset, operation)?,
        (Version::V3, assets) => check_assets_v3(assets, operation)?,
    };
    if matches!(operation, Operation::Create | Operation::Decompose) && inputs.len() > 1 {
        let quoted = member(transaction, "inputs")?.quoted();
        return Err(schema(format!("{quoted} is too long")));
    }
    for input in inputs {
        let fulfills = member(object(input)?, "fulfills")?;
        match (operation, fulfills) {
            (Operation::Create, Value::Null) => {}
            (Operation::Create, other) => return Err(not_of_type(other, "null")),
            (_, Value::Null) => return Err(not_of_type(fulfills, "object")),
            _ => {}
        }
    }
    Ok(Form {
        version,
        operation,
        data,
        ids,
        metadata,
        inputs: input_forms,
        outputs,
    })
}

fn check_asset_v2(asset: &Value, operation: Operation) -> Checked<(Vec<&Value>, usize)> {
    let asset = object(asset)?;
    match operation {
        Operation::Create => {
            members(asset, &["data"])?;
            match member(asset, "data")? {
                data @ (Value::Object(_) | Value::String(_) | Value::Null) => Ok((vec![data], 0)),
                other => Err(not_of_type(other, "object")),
            }
        }
        _ => {
            members(asset, &["id"])?;
            transaction_id(member(asset, "id")?)?;
            Ok((Vec::new(), 1))
        }
    }
}

fn check_assets_v3(assets: &Value, operation: Operation) -> Checked<(Vec<&Value>, usize)> {
    let mut data = Vec::new();
    let mut ids = 0;
    let Value::Array(items) = assets else {
        return match operation {
            Operation::Create => Ok((data, ids)),
            _ => Err(not_of_type(assets, "array")),
        };
    };
    if items.is_empty() {
        return Err(schema("[] is too short"));
    }
    for item in items {
        let entry = object(item)?;
        match operation {
            Operation::Create => members(entry, &["data"])?,
            Operation::Transfer => members(entry, &["id"])?,
            Operation::Compose | Operation::Decompose if entry.get("data").is_some() => {
                members(entry, &["data"])?;
            }
            Operation::Compose | Operation::Decompose => members(entry, &["id"])?,
        }
        match (entry.get("data"), operation) {
            (Some(text @ Value::String(_)), _) => data.push(text),
            (Some(Value::Null), Operation::Create) => data.push(&Value::Null),
            (Some(other), _) => return Err(not_of_type(other, "string")),
            (None, Operation::Create) => return Err(missing("data")),
            (None, _) => {
                transaction_id(member(entry, "id")?)?;
                ids += 1;
            }
        }
    }
    let fits = match operation {
        Operation::Create if items.len() > 1 => {
            return Err(schema(format!("{} is too long", assets.quoted())));
        }
        Operation::Create | Operation::Transfer => true,
        Operation::Compose => data.len() == 1 && ids >= 1,
        Operation::Decompose => !data.is_empty() && ids == 1,
    };
    if !fits {
        return Err(schema(match operation {
            Operation::Compose => {
                "'assets' of a COMPOSE holds exactly one 'data' and the 'id' of every asset consumed"
            }
            _ => "'assets' of a DECOMPOSE holds one 'data' or more and exactly one 'id'",
        }));
    }
    Ok((data, ids))
}

fn check_input(value: &Value) -> Checked<InputForm<'_>> {
    let input = object(value)?;
    let owners = member(input, "owners_before")?;
    let fulfillment = member(input, "fulfillment")?;
    members(input, &["fulfillment", "fulfills", "owners_before"])?;
    let owners = public_keys(owners)?;
    let fulfillment = match fulfillment {
        Value::String(text) if text.bytes().all(is_base64url) => Some(text.as_str()),
        other => {
            details_from_value(other)?;
            None
        }
    };
    let fulfills = match input.get("fulfills") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let link = object(value)?;
            let index = member(link, "output_index")?;
            let transaction = member(link, "transaction_id")?;
            members(link, &["output_index", "transaction_id"])?;
            match index {
                Value::Integer(integer) if integer.is_negative() => {
                    return Err(less_than(index, 0));
                }
                Value::Integer(_) => {}
                other => return Err(not_of_type(other, "integer")),
            }
            Some((transaction_id(transaction)?, index))
        }
    };
    Ok(InputForm {
        owners,
        fulfillment,
        fulfills,
    })
}

fn check_output(value: &Value) -> Checked<OutputForm<'_>> {
    let output = object(value)?;
    let amount = member(output, "amount")?;
    let condition = member(output, "condition")?;
    let keys = member(output, "public_keys")?;
    members(output, &["amount", "condition", "public_keys"])?;
    let digits = string(amount)?;
    if !(1..=20).contains(&digits.len()) || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return Err(no_match(amount, "^[0-9]{1,20}$"));
    }
    let condition = object(condition)?;
    let details = member(condition, "details")?;
    let uri = member(condition, "uri")?;
    members(condition, &["details", "uri"])?;
    Ok(OutputForm {
        amount: digits,
        details: details_from_value(details)?,
        uri: string(uri)?,
        public_keys: public_keys(keys)?,
    })
}

fn public_keys(value: &Value) -> Checked<Vec<PublicKey>> {
    filled_array(value)?.iter().map(public_key).collect()
}

fn public_key(value: &Value) -> Checked<PublicKey> {
    let text = string(value)?;
    if !(43..=44).contains(&text.len()) || !text.bytes().all(key::is_base58) {
        return Err(no_match(value, "^[1-9a-zA-Z^OIl]{43,44}$"));
    }
    text.parse().map_err(|_| {
        schema(format!(
            "{} is not the base58 text of 32 bytes",
            value.quoted()
        ))
    })
}

fn transaction_id(value: &Value) -> Checked<&str> {
    let text = string(value)?;
    let digits = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if text.len() != 64 || !text.bytes().all(digits) {
        return Err(no_match(value, "^[0-9a-f]{64}$"));
    }
    Ok(text)
}

fn is_base64url(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'-' || c == b'_'
}

// 6.3 and 6.4

fn check_names(form: &Form<'_>, rules: &Rules) -> Checked {
    // In version 3.0 there are only strings, which have no members.
    if form.version == Version::V3 {
        return Ok(());
    }
    let data = form.data.first().copied();
    if rules.key_names {
        data.map_or(Ok(()), |data| check_key_names(data, "asset"))?;
        check_key_names(form.metadata, "metadata")?;
    }
    if rules.language {
        data.map_or(Ok(()), check_language)?;
        check_language(form.metadata)?;
    }
    Ok(())
}

fn check_key_names(value: &Value, place: &str) -> Checked {
    match value {
        Value::Object(object) => object.as_written().try_for_each(|(key, value)| {
            if key.starts_with('$') || key.contains(['.', '\0']) {
                let key = Value::from(key).quoted_bare();
                return Err(validation(format!(
                    "Invalid key name \"{key}\" in {place} object. The key name cannot contain \
                     characters \".\", \"$\" or null characters"
                )));
            }
            check_key_names(value, place)
        }),
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check_key_names(item, place)),
        _ => Ok(()),
    }
}

fn check_language(value: &Value) -> Checked {
    match value {
        Value::Object(object) => object.as_written().try_for_each(|(key, value)| {
            if key != "language" {
                return check_language(value);
            }
            if value.as_str().is_some_and(|text| LANGUAGES.contains(&text)) {
                return Ok(());
            }
            let language = value.quoted_bare();
            Err(validation(format!(
                "MongoDB does not support text search for the language \"{language}\". If you do \
                 not understand this error message then please rename key/field \"language\" to \
                 something else like \"lang\"."
            )))
        }),
        Value::Array(items) => items.iter().try_for_each(check_language),
        _ => Ok(()),
    }
}

// 6.5

fn check_inputs_and_outputs(form: &Form<'_>, rules: &Rules) -> Checked {
    let depth_max = rules.limits.condition_depth_max;
    for input in &form.inputs {
        if let Some(text) = input.fulfillment {
            condition::decode_text(text.as_bytes(), depth_max)
                .ok_or_else(condition::undecodable)?;
        }
    }
    for output in &form.outputs {
        let amount: u128 = output.amount.parse().unwrap_or(u128::MAX);
        if amount == 0 {
            return Err(amount_error("`amount` must be greater than 0".to_owned()));
        }
        if amount > u128::from(AMOUNT_MAX) {
            return Err(amount_error(format!("`amount` must be <= {AMOUNT_MAX}")));
        }
        if output.details.depth() > depth_max {
            return Err(Rejection::new(
                RejectionClass::ThresholdTooDeep,
                format!("Conditions are nested at most {depth_max} levels deep"),
            ));
        }
        if !output.details.is_possible() {
            return Err(validation(
                "A condition's threshold is larger than the number of its subconditions",
            ));
        }
        let uri = output.details.condition().uri();
        if output.uri != uri {
            return Err(validation(format!(
                "The condition's uri {} does not follow from its details, which give '{uri}'",
                Value::from(output.uri).quoted()
            )));
        }
        let keys: BTreeSet<PublicKey> = output.details.keys().into_iter().collect();
        if output.public_keys.iter().copied().collect::<BTreeSet<_>>() != keys {
            return Err(validation(
                "An output's public_keys are not the keys of its condition's details",
            ));
        }
    }
    if form.outputs.len() > rules.limits.outputs_max {
        return Err(validation(format!(
            "A transaction has at most {} outputs",
            rules.limits.outputs_max
        )));
    }
    Ok(())
}

// 8

fn check_operation(form: &Form<'_>) -> Checked {
    match form.operation {
        Operation::Create | Operation::Transfer => Ok(()),
        Operation::Compose if form.outputs.len() == 1 => Ok(()),
        Operation::Compose => Err(validation("A COMPOSE has exactly one output")),
        Operation::Decompose => {
            if form.ids != 1 || form.outputs.len() != form.data.len() {
                return Err(validation(
                    "A DECOMPOSE has one output for each 'data' in its assets",
                ));
            }
            let [owner] = form.inputs[0].owners[..] else {
                return Err(validation(
                    "The asset that a DECOMPOSE consumes has a single owner",
                ));
            };
            if form
                .outputs
                .iter()
                .any(|output| output.public_keys != [owner])
            {
                return Err(validation(
                    "Every output of a DECOMPOSE has one key: that of its input's owner",
                ));
            }
            Ok(())
        }
    }
}

/// What is decided against committed state in the reference but needs no state.
fn check_signed(form: &Form<'_>) -> Checked {
    for input in &form.inputs {
        if let Some((transaction, index)) = input.fulfills {
            // Indexes of outputs are far smaller than 32 bits.
            if index
                .as_u64()
                .is_none_or(|index| index > u64::from(u32::MAX))
            {
                return Err(Rejection::new(
                    RejectionClass::InputDoesNotExist,
                    format!("input `{transaction}` doesn't exist"),
                ));
            }
        }
    }
    if form.inputs.iter().any(|input| input.fulfillment.is_none()) {
        return Err(Rejection::new(
            RejectionClass::InvalidSignature,
            "Transaction signature is invalid.",
        ));
    }
    Ok(())
}

// Words of the schema

fn schema(detail: impl Into<String>) -> Rejection {
    Rejection::new(RejectionClass::SchemaValidationError, detail)
}

fn validation(detail: impl Into<String>) -> Rejection {
    Rejection::new(RejectionClass::ValidationError, detail)
}

fn amount_error(detail: String) -> Rejection {
    Rejection::new(RejectionClass::AmountError, detail)
}

fn missing(name: &str) -> Rejection {
    schema(format!("'{name}' is a required property"))
}

fn not_of_type(value: &Value, kind: &str) -> Rejection {
    schema(format!("{} is not of type '{kind}'", value.quoted()))
}

fn no_match(value: &Value, pattern: &str) -> Rejection {
    schema(format!("{} does not match '{pattern}'", value.quoted()))
}

fn less_than(value: &Value, minimum: u32) -> Rejection {
    schema(format!(
        "{} is less than the minimum of {minimum}",
        value.quoted()
    ))
}

fn member<'v>(object: &'v Object, name: &str) -> Checked<&'v Value> {
    object.get(name).ok_or_else(|| missing(name))
}

/// No member but those named.
fn members(object: &Object, names: &[&str]) -> Checked {
    let extra: Vec<&str> = object
        .as_written()
        .map(|(name, _)| name)
        .filter(|name| !names.contains(name))
        .collect();
    let (first, verb) = match extra[..] {
        [] => return Ok(()),
        [one] => (Value::from(one).quoted(), "was"),
        _ => {
            // Two examples say enough.
            let quoted: Vec<String> = extra
                .iter()
                .take(2)
                .map(|name| Value::from(*name).quoted())
                .collect();
            (quoted.join(", "), "were")
        }
    };
    Err(schema(format!(
        "Additional properties are not allowed ({first} {verb} unexpected)"
    )))
}

fn object(value: &Value) -> Checked<&Object> {
    value
        .as_object()
        .ok_or_else(|| not_of_type(value, "object"))
}

fn array(value: &Value) -> Checked<&[Value]> {
    value.as_array().ok_or_else(|| not_of_type(value, "array"))
}

fn filled_array(value: &Value) -> Checked<&[Value]> {
    let items = array(value)?;
    if items.is_empty() {
        Err(schema("[] is too short"))
    } else {
        Ok(items)
    }
}

fn string(value: &Value) -> Checked<&str> {
    value.as_str().ok_or_else(|| not_of_type(value, "string"))
}
