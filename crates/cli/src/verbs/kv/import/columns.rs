//! Key, tenant and value of a record.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Map, Value};
use stead_types::{
    TenantName,
    limits::{KEY_LEN_MAX, TTL_MS_MAX, VALUE_LEN_MAX},
};

use super::records::Record;
use crate::exit::{Code, CommandError};

/// Row to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) tenant: TenantName,
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    /// Time to live from the import on; `None`: the key does not expire.
    pub(super) ttl: Option<Duration>,
}

/// Source of the tenant's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TenantSource {
    /// The same for all.
    Fixed(TenantName),
    /// Column with this name.
    Column(String),
}

/// Names of the columns that are used, as the command line has them.
#[derive(Clone, Debug)]
pub(super) struct ColumnNames {
    pub(super) key: String,
    pub(super) tenant: TenantSource,
    /// Column of the value; absent: the whole record as it stands in the file.
    pub(super) value: Option<String>,
    /// Column of the time to live in milliseconds; absent, and where it is empty: keys do not expire.
    pub(super) ttl: Option<String>,
    /// Whether the tenant's name is written in lower case.
    pub(super) lowercase: bool,
    /// Bytes before each key.
    pub(super) key_prefix: Vec<u8>,
}

/// Columns of one file.
#[derive(Debug)]
pub(super) struct Columns {
    names: ColumnNames,
    /// Indexes of the columns of key, tenant and value; `None` for JSON lines.
    indexes: Option<Indexes>,
}

#[derive(Debug)]
struct Indexes {
    key: usize,
    tenant: Option<usize>,
    value: Option<usize>,
    ttl: Option<usize>,
}

impl Columns {
    /// Returns the columns of JSON lines, where each record has its own names.
    pub(super) fn of_json(names: ColumnNames) -> Self {
        Self { names, indexes: None }
    }

    /// Finds the columns in the first line of a CSV file.
    ///
    /// # Errors
    ///
    /// A column that is not there, with those that are.
    pub(super) fn of_csv(names: ColumnNames, header: &[Vec<u8>]) -> Result<Self, CommandError> {
        let header: Vec<_> = header.iter().map(|name| String::from_utf8_lossy(name)).collect();
        let find = |flag: &str, name: &str| {
            header.iter().position(|column| column == name).ok_or_else(|| {
                let columns = header.join(", ");
                CommandError::new(Code::Usage, format!("{flag}: the file has no column {name:?}"))
                    .hint(format!("its first line has the columns {columns}"))
            })
        };
        let tenant = match &names.tenant {
            TenantSource::Fixed(_) => None,
            TenantSource::Column(name) => Some(find("--tenant-column", name)?),
        };
        let value = names.value.as_deref().map(|name| find("--value", name)).transpose()?;
        let ttl = names.ttl.as_deref().map(|name| find("--ttl", name)).transpose()?;
        let key = find("--key", &names.key)?;
        let indexes = Some(Indexes {
            key,
            tenant,
            value,
            ttl,
        });
        Ok(Self { names, indexes })
    }

    /// Returns the row of a record, or why it is none.
    pub(super) fn row(&self, record: &Record) -> Result<Row, String> {
        let fields = record.fields.as_ref().map_err(Clone::clone)?;
        let (key, tenant, value, ttl) = match &self.indexes {
            Some(of) => {
                let field = |index: usize| fields.get(index).cloned().unwrap_or_default();
                let value = of.value.map(field);
                (field(of.key), of.tenant.map(field), value, of.ttl.map(field))
            }
            None => {
                let object = object(&fields[0])?;
                let tenant = match &self.names.tenant {
                    TenantSource::Fixed(_) => None,
                    TenantSource::Column(name) => Some(member(&object, name)?),
                };
                let value = self
                    .names
                    .value
                    .as_deref()
                    .map(|name| member(&object, name))
                    .transpose()?;
                let ttl = self.names.ttl.as_deref().filter(|name| object.contains_key(*name));
                let ttl = ttl.map(|name| member(&object, name)).transpose()?;
                (member(&object, &self.names.key)?, tenant, value, ttl)
            }
        };
        let tenant = self.tenant(tenant)?;
        let key = [&self.names.key_prefix[..], &key].concat();
        let row = checked(tenant, key, value.unwrap_or_else(|| record.raw.clone()))?;
        let ttl = time_to_live(&ttl.unwrap_or_default())?;
        Ok(Row { ttl, ..row })
    }

    fn tenant(&self, field: Option<Vec<u8>>) -> Result<TenantName, String> {
        let field = match (&self.names.tenant, field) {
            (TenantSource::Fixed(name), _) => return Ok(name.clone()),
            (TenantSource::Column(_), field) => field.unwrap_or_default(),
        };
        let mut name = String::from_utf8(field).map_err(|_| "the tenant's name is no UTF-8".to_owned())?;
        if self.names.lowercase {
            name = name.to_lowercase();
        }
        let hint = match name.chars().any(char::is_uppercase) {
            true => "; --lowercase writes it in lower case",
            false => "",
        };
        name.parse().map_err(|why| format!("tenant: {why}; got {name:?}{hint}"))
    }
}

/// Returns a row within the limits.
fn checked(tenant: TenantName, key: Vec<u8>, value: Vec<u8>) -> Result<Row, String> {
    if key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    if key.len() > KEY_LEN_MAX {
        return Err(format!("the key has {} bytes, of at most {KEY_LEN_MAX}", key.len()));
    }
    if value.len() > VALUE_LEN_MAX {
        return Err(format!(
            "the value has {} bytes, of at most {VALUE_LEN_MAX}",
            value.len()
        ));
    }
    let (key, value) = (key.into(), value.into());
    Ok(Row {
        tenant,
        key,
        value,
        ttl: None,
    })
}

/// Parses a time to live; an empty one is none.
fn time_to_live(text: &[u8]) -> Result<Option<Duration>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let ms = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
    match ms {
        Some(ms @ 1..=TTL_MS_MAX) => Ok(Some(Duration::from_millis(ms))),
        _ => {
            let text = String::from_utf8_lossy(text);
            Err(format!(
                "the time to live is a number of milliseconds from 1 to {TTL_MS_MAX}; got {text:?}"
            ))
        }
    }
}

fn object(line: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(line) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("the line is no JSON object".to_owned()),
        Err(error) => Err(format!("the line is no JSON: {error}")),
    }
}

/// Returns the bytes of a member: of a string its text, of `NAME_base64` what it encodes, of others their JSON text.
fn member(object: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    match object.get(name) {
        Some(Value::String(text)) => Ok(text.clone().into_bytes()),
        Some(Value::Null) | None => {
            let encoded = object.get(&format!("{name}{BASE64_SUFFIX}")).and_then(Value::as_str);
            let encoded = encoded.ok_or_else(|| format!("it has no field {name:?}"))?;
            STANDARD
                .decode(encoded)
                .map_err(|error| format!("{name}{BASE64_SUFFIX} is no base64: {error}"))
        }
        Some(other) => Ok(other.to_string().into_bytes()),
    }
}

/// Suffix of the field that has bytes that are no UTF-8.
pub(in crate::verbs::kv) const BASE64_SUFFIX: &str = "_base64";

#[cfg(test)]
mod tests {
    use super::{
        super::records::{Position, Records, Shape},
        *,
    };

    fn names(tenant: TenantSource, value: Option<&str>) -> ColumnNames {
        ColumnNames {
            key: "id".to_owned(),
            tenant,
            value: value.map(str::to_owned),
            ttl: Some("ttl".to_owned()),
            lowercase: true,
            key_prefix: b"p/".to_vec(),
        }
    }

    fn first(columns: &Columns, shape: Shape, input: &str) -> Result<Row, String> {
        let mut records = Records::new(input.as_bytes(), shape, Position::default());
        columns.row(&records.next().unwrap().unwrap())
    }

    fn row(tenant: &str, key: &str, value: &[u8]) -> Row {
        Row {
            tenant: tenant.parse().unwrap(),
            key: key.as_bytes().to_vec().into(),
            value: value.to_vec().into(),
            ttl: None,
        }
    }

    #[test]
    fn csv_row_takes_tenant_key_and_whole_line() {
        let header = [b"id".to_vec(), b"country".to_vec(), b"ttl".to_vec()];
        let columns = Columns::of_csv(names(TenantSource::Column("country".to_owned()), None), &header).unwrap();
        let shape = Shape::Csv {
            columns: 2,
            delimiter: b',',
        };
        assert_eq!(first(&columns, shape, "7,DE\n").unwrap(), row("de", "p/7", b"7,DE"));
        assert!(
            first(&columns, shape, ",DE\n").is_ok(),
            "the prefix makes a key of an empty field"
        );
        assert!(first(&columns, shape, "7,\n").unwrap_err().starts_with("tenant: "));
        let long = format!("{},DE\n", "k".repeat(KEY_LEN_MAX));
        assert!(first(&columns, shape, &long).unwrap_err().contains("of at most 4096"));
    }

    #[test]
    fn column_that_is_missing_is_named_with_those_that_are_there() {
        let header = [b"icao".to_vec(), b"ttl".to_vec()];
        let fixed = TenantSource::Fixed("acme".parse().unwrap());
        let error = Columns::of_csv(names(fixed, None), &header).unwrap_err();
        assert_eq!(error.text(), "--key: the file has no column \"id\"");
    }

    #[test]
    fn json_row_takes_strings_numbers_and_base64() {
        let fixed = TenantSource::Fixed("acme".parse().unwrap());
        let columns = Columns::of_json(names(fixed, Some("value")));
        let read = |line: &str| first(&columns, Shape::JsonLines, line);
        assert_eq!(
            read(r#"{"id":7,"value":{"a":1}}"#).unwrap(),
            row("acme", "p/7", br#"{"a":1}"#)
        );
        assert_eq!(
            read(r#"{"id":"k","value":null,"value_base64":"/w=="}"#).unwrap(),
            row("acme", "p/k", &[255])
        );
        assert_eq!(
            read(r#"{"id":"k","value":"v","ttl":9}"#).unwrap().ttl,
            Some(Duration::from_millis(9))
        );
        assert_eq!(read(r#"{"id":"k"}"#).unwrap_err(), "it has no field \"value\"");
        assert!(read("[1]").unwrap_err().contains("no JSON object"));
        assert!(read("{").unwrap_err().contains("no JSON"));
    }
}
