//! Loading of a configuration: the file, then the environment, then a check of every key.

use toml::{Table, Value};

use super::Config;

/// All keys, dotted; keys below `net.dial` are addresses.
pub const KEYS: &[&str] = &[
    "auth.clock_leeway",
    "auth.http_open",
    "auth.issuers",
    "auth.mode",
    "auth.token_lifetime_max",
    "cluster.directory_rtt_max",
    "cluster.groups_per_region",
    "cluster.initial",
    "cluster.join",
    "cluster.name",
    "cluster.regions",
    "client.advertise",
    "client.listen",
    "http.advertise",
    "http.listen",
    "log.format",
    "log.level",
    "net.dial",
    "net.seed_bytes_per_second_max",
    "node.data_dir",
    "node.name",
    "node.shutdown_timeout",
    "peer.advertise",
    "peer.listen",
    "storage.disk_reserve_bytes",
    "storage.engine",
    "storage.history_age_max",
    "storage.history_bytes_max",
    "storage.seed_history_bytes_max",
    "storage.sled_majority",
    "tls.ca",
    "tls.certificate",
    "tls.handshake_timeout",
    "tls.handshakes_in_flight_max",
    "tls.handshakes_per_second_max",
    "tls.http_plaintext",
    "tls.key",
    "tls.plaintext",
];

/// Keys of the entries of lists.
const ENTRY_KEYS: &[(&str, &[&str])] = &[
    (
        "auth.issuers",
        &["name", "public_key_file", "grants_roles", "emergency"],
    ),
    (
        "cluster.initial",
        &["name", "region", "peer", "client", "http", "witness", "engine"],
    ),
    ("cluster.regions", &["name", "jurisdiction"]),
];

/// Prefix of environment variables that set a key: `STEAD_NODE__DATA_DIR` is `node.data_dir`.
const ENVIRONMENT_PREFIX: &str = "STEAD_";
/// Least similarity of a key that is suggested as "did you mean".
const LIKENESS_MIN: f64 = 0.7;

/// Error of a configuration: the setting, the problem, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is no TOML, or a value has the wrong type.
    #[error("cannot parse the configuration")]
    Syntax(#[source] toml::de::Error),
    /// An unknown key.
    #[error("unknown setting {key}{}", did_you_mean(.meant))]
    UnknownKey {
        /// The key in the file or the environment.
        key: String,
        /// The key that was probably meant.
        meant: Option<&'static str>,
    },
    /// A value that cannot be used.
    #[error("{key}: {problem}")]
    Value {
        /// The setting.
        key: String,
        /// The problem and what to do.
        problem: String,
    },
}

fn did_you_mean(meant: &Option<&'static str>) -> String {
    match meant {
        Some(key) => format!(" (did you mean {key}?)"),
        None => ": `stead config default` shows them all".into(),
    }
}

impl ConfigError {
    /// Returns the error of a value.
    pub fn value(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Value {
            key: key.into(),
            problem: problem.into(),
        }
    }
}

impl Config {
    /// Loads the text of a file, overridden by these environment variables.
    pub fn load(text: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut table: Table = text.parse().map_err(ConfigError::Syntax)?;
        for (name, value) in environment {
            if let Some((section, key)) = split_variable(&name) {
                set_value(&mut table, &section, &key, value)?;
            }
        }
        check_keys(&table)?;
        Value::Table(table).try_into().map_err(ConfigError::Syntax)
    }
}

/// Splits `STEAD_NODE__DATA_DIR` into `node` and `data_dir`; `None` for other variables.
fn split_variable(name: &str) -> Option<(String, String)> {
    let (section, key) = name.strip_prefix(ENVIRONMENT_PREFIX)?.split_once("__")?;
    Some((section.to_ascii_lowercase(), key.to_ascii_lowercase()))
}

fn set_value(table: &mut Table, section: &str, key: &str, value: String) -> Result<(), ConfigError> {
    let value = match (value.parse(), value.parse()) {
        // A list of addresses, with commas between.
        _ if (section, key) == ("cluster", "join") => {
            let addresses = value.split(',').filter(|address| !address.is_empty());
            Value::Array(addresses.map(|address| Value::String(address.to_owned())).collect())
        }
        (Ok(number), _) => Value::Integer(number),
        (_, Ok(flag)) => Value::Boolean(flag),
        (Err(_), Err(_)) => Value::String(value),
    };
    let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    match section.as_table_mut() {
        Some(section) => {
            section.insert(key.to_owned(), value);
            Ok(())
        }
        None => Err(ConfigError::value(key, "its section is not a table in the file")),
    }
}

fn check_keys(table: &Table) -> Result<(), ConfigError> {
    for (section, value) in table {
        let keys: Vec<String> = match value.as_table() {
            Some(keys) => keys.keys().map(|key| format!("{section}.{key}")).collect(),
            None => vec![section.clone()],
        };
        if let Some(key) = keys.into_iter().find(|key| !KEYS.contains(&key.as_str())) {
            let meant = closest(&key, KEYS);
            return Err(ConfigError::UnknownKey { key, meant });
        }
    }
    ENTRY_KEYS
        .iter()
        .try_for_each(|(list, keys)| check_entries(table, list, keys))
}

fn check_entries(table: &Table, list: &str, known: &[&'static str]) -> Result<(), ConfigError> {
    let entries = list
        .split_once('.')
        .and_then(|(section, key)| table.get(section)?.get(key)?.as_array());
    for (at, entry) in entries.into_iter().flatten().enumerate() {
        let keys = entry.as_table().into_iter().flat_map(Table::keys);
        if let Some(key) = keys.into_iter().find(|key| !known.contains(&key.as_str())) {
            let meant = closest(key, known);
            let key = format!("{list}[{at}].{key}");
            return Err(ConfigError::UnknownKey { key, meant });
        }
    }
    Ok(())
}

fn closest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let likeness = |known: &&'static str| (strsim::jaro_winkler(known, key), *known);
    let best = known.iter().map(likeness).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= LIKENESS_MIN).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_config_fields() {
        let table = Table::try_from(Config::default()).unwrap();
        let mut keys = Vec::new();
        for (section, value) in &table {
            keys.extend(value.as_table().unwrap().keys().map(|key| format!("{section}.{key}")));
        }
        keys.sort();
        let mut known: Vec<&str> = KEYS.to_vec();
        known.sort_unstable();
        assert_eq!(keys, known);
    }

    #[test]
    fn settings_match_operations_document() {
        let text = include_str!("../../../../docs/operations.md");
        let rows = text.lines().take_while(|line| *line != "## Limits of a tenant");
        let cells = rows.filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
        let mut documented: Vec<&str> = cells
            .flat_map(|(names, _)| names.split(", "))
            .map(|name| name.trim_matches('`'))
            .collect();
        documented.sort_unstable();
        let mut known: Vec<&str> = KEYS.to_vec();
        known.sort_unstable();
        assert_eq!(documented, known);
    }

    #[test]
    fn load_unknown_setting_suggests_similar_one() {
        let error = Config::load("[storage]\nengin = \"sled\"", []).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown setting storage.engin (did you mean storage.engine?)"
        );
        let error = Config::load("[cluster]\ninitial = [{ nmae = \"a\" }]", []).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown setting cluster.initial[0].nmae (did you mean name?)"
        );
        let error = Config::load("[zebra]\nstripes = 1", []).unwrap_err();
        assert!(
            error.to_string().starts_with("unknown setting zebra.stripes"),
            "{error}"
        );
    }

    #[test]
    fn load_environment_overrides_file() {
        let environment = [
            ("STEAD_STORAGE__ENGINE".into(), "sled".into()),
            ("HOME".into(), "/root".into()),
        ];
        let config = Config::load("[storage]\nengine = \"fjall\"", environment).unwrap();
        assert_eq!(config.storage.engine, "sled");
        let flag = [("STEAD_STORAGE__SLED_MAJORITY".into(), "true".into())];
        assert!(Config::load("", flag).unwrap().storage.sled_majority);
        let unknown = [("STEAD_STORAGE__ENGIN".into(), "sled".into())];
        assert!(Config::load("", unknown).is_err());
    }
}
