//! Values that are stored as their text: keys and ids.

use std::{fmt::Display, str::FromStr};

use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(crate) fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

/// The same for values that may be missing.
pub(crate) mod option {
    use super::*;

    pub(crate) fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}

/// An output reference as `transaction:index`.
pub(crate) mod output {
    use daybook_ledger::OutputRef;

    use super::*;

    pub(crate) fn write(output: &OutputRef) -> String {
        format!("{}:{}", output.transaction, output.index)
    }

    pub(crate) fn read(text: &str) -> Option<OutputRef> {
        let (transaction, index) = text.split_once(':')?;
        Some(OutputRef {
            transaction: transaction.parse().ok()?,
            index: index.parse().ok()?,
        })
    }

    pub(crate) fn serialize<S: Serializer>(output: &OutputRef, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&write(output))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<OutputRef, D::Error> {
        let text = String::deserialize(from)?;
        read(&text).ok_or_else(|| D::Error::custom("not an output"))
    }

    pub(crate) mod list {
        use serde::ser::SerializeSeq;

        use super::*;

        pub(crate) fn serialize<S: Serializer>(
            outputs: &[OutputRef],
            to: S,
        ) -> Result<S::Ok, S::Error> {
            let mut list = to.serialize_seq(Some(outputs.len()))?;
            for output in outputs {
                list.serialize_element(&write(output))?;
            }
            list.end()
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Vec<OutputRef>, D::Error> {
            Vec::<String>::deserialize(from)?
                .iter()
                .map(|text| read(text).ok_or_else(|| D::Error::custom("not an output")))
                .collect()
        }
    }
}
