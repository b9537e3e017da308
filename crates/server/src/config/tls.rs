//! Settings of TLS: certificates, plain text, and limits of handshakes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stead_tls::{PlainText, TlsFiles};

use super::{ConfigError, ValidatedConfig, duration::parse_duration};
use crate::tls::HandshakeLimits;

/// Value that permits plain text.
const ALLOW: &str = "allow";
/// Most handshakes that a limit may permit.
const HANDSHAKES_MAX: u32 = 100_000;

/// Settings of TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// File with the certificates of the CAs that are trusted.
    pub ca: String,
    /// File with this node's certificate.
    pub certificate: String,
    /// File with its key.
    pub key: String,
    /// `allow`: plain text is spoken beside TLS, or without certificates beyond this machine; empty: it is not.
    pub plaintext: String,
    /// `allow`: the HTTP listener also speaks plain text; empty: only on a loopback address.
    pub http_plaintext: String,
    /// Most handshakes at once, on each listener.
    pub handshakes_in_flight_max: u32,
    /// Most handshakes a second, on each listener.
    pub handshakes_per_second_max: u32,
    /// Longest time of a handshake.
    pub handshake_timeout: String,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            ca: String::new(),
            certificate: String::new(),
            key: String::new(),
            plaintext: String::new(),
            http_plaintext: String::new(),
            handshakes_in_flight_max: 64,
            handshakes_per_second_max: 500,
            handshake_timeout: "5s".into(),
        }
    }
}

/// Settings of TLS in which every value has been validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Files of certificates; absent: the node speaks plain text.
    pub files: Option<TlsFiles>,
    /// Whether plain text is spoken beside TLS, or without certificates beyond this machine.
    pub plaintext: PlainText,
    /// Whether the HTTP listener also speaks plain text.
    pub http_plain: bool,
    /// Limits of handshakes.
    pub handshakes: HandshakeLimits,
}

impl Tls {
    pub(crate) fn validate(&self) -> Result<TlsConfig, ConfigError> {
        let allowed = |key, value: &str| match value {
            "" => Ok(PlainText::Refused),
            ALLOW => Ok(PlainText::Allowed),
            other => {
                let problem = format!("{other:?} is none of its values: leave it empty, or write \"{ALLOW}\"");
                Err(ConfigError::value(key, problem))
            }
        };
        let limit = |key, value: u32| match value {
            1..=HANDSHAKES_MAX => Ok(value),
            other => Err(ConfigError::value(
                key,
                format!("{other} is not within 1 and {HANDSHAKES_MAX}"),
            )),
        };
        Ok(TlsConfig {
            files: self.files()?,
            plaintext: allowed("tls.plaintext", &self.plaintext)?,
            http_plain: allowed("tls.http_plaintext", &self.http_plaintext)? == PlainText::Allowed,
            handshakes: HandshakeLimits {
                in_flight_max: limit("tls.handshakes_in_flight_max", self.handshakes_in_flight_max)?,
                per_second_max: limit("tls.handshakes_per_second_max", self.handshakes_per_second_max)?,
                timeout: parse_duration("tls.handshake_timeout", &self.handshake_timeout)?,
            },
        })
    }

    fn files(&self) -> Result<Option<TlsFiles>, ConfigError> {
        let values = [
            ("tls.ca", &self.ca),
            ("tls.certificate", &self.certificate),
            ("tls.key", &self.key),
        ];
        if values.iter().all(|(_, value)| value.is_empty()) {
            return Ok(None);
        }
        if let Some((key, _)) = values.iter().find(|(_, value)| value.is_empty()) {
            let problem =
                "name its file too: a node needs the CA, its certificate and its key; `stead cert` makes them";
            return Err(ConfigError::value(*key, problem));
        }
        Ok(Some(TlsFiles {
            ca: PathBuf::from(&self.ca),
            certificate: Some(PathBuf::from(&self.certificate)),
            key: Some(PathBuf::from(&self.key)),
        }))
    }
}

/// Refuses a node without certificates that would speak plain text beyond this machine without being asked to; permits
/// plain text at an HTTP listener on a loopback address.
pub(super) fn check_listeners(config: &mut ValidatedConfig) -> Result<(), ConfigError> {
    config.tls.http_plain |= is_loopback(&config.http.listen);
    if config.tls.files.is_some() || config.tls.plaintext == PlainText::Allowed {
        return Ok(());
    }
    let listeners = [
        ("client", &config.client.listen),
        ("peer", &config.peer.listen),
        ("http", &config.http.listen),
    ];
    let Some((section, address)) = listeners.into_iter().find(|(_, address)| !is_loopback(address)) else {
        return Ok(());
    };
    let problem = format!(
        "without certificates a node speaks plain text, which is for loopback addresses only, and {section}.listen is \
         {address}: make certificates with `stead cert` and name them in tls.ca, tls.certificate and tls.key, or write \
         tls.plaintext = \"{ALLOW}\" if the network itself is protected"
    );
    Err(ConfigError::value("tls.certificate", problem))
}

/// Tells whether an address is reached from this machine only.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn checked(listen: &str, tls: &str) -> Result<super::TlsConfig, String> {
        let text = format!(
            "[cluster]\ninitial = [{{ name = \"a\", region = \"eu\", peer = \"127.0.0.1:1\", client = \"127.0.0.1:2\", http = \
             \"127.0.0.1:3\" }}]\nregions = [{{ name = \"eu\", jurisdiction = \"EU\" }}]\n[node]\nname = \"a\"\n[client]\nlisten = \
             \"{listen}\"\n[tls]\n{tls}"
        );
        let validated = Config::load(&text, []).unwrap().validate();
        validated.map(|config| config.tls).map_err(|error| error.to_string())
    }

    const FILES: &str = "ca = \"ca.crt\"\ncertificate = \"node.crt\"\nkey = \"node.key\"\n";

    #[test]
    fn plain_text_beyond_loopback_is_refused_unless_asked_for() {
        for loopback in ["127.0.0.1:2", "localhost:2", "[::1]:2"] {
            assert!(checked(loopback, "").is_ok(), "{loopback}");
        }
        let refused = checked("0.0.0.0:2", "").unwrap_err();
        assert!(
            refused.contains("client.listen is 0.0.0.0:2") && refused.contains("tls.plaintext = \"allow\""),
            "{refused}"
        );
        assert!(checked("0.0.0.0:2", "plaintext = \"allow\"").is_ok());
        assert!(checked("0.0.0.0:2", FILES).is_ok());
    }

    #[test]
    fn incomplete_and_unknown_values_are_refused() {
        let refused = checked("127.0.0.1:2", "ca = \"ca.crt\"").unwrap_err();
        assert!(refused.starts_with("tls.certificate: name its file too"), "{refused}");
        let refused = checked("127.0.0.1:2", "plaintext = \"yes\"").unwrap_err();
        assert!(refused.starts_with("tls.plaintext: \"yes\" is none"), "{refused}");
        let refused = checked("127.0.0.1:2", "handshakes_per_second_max = 0").unwrap_err();
        assert!(
            refused.starts_with("tls.handshakes_per_second_max: 0 is not"),
            "{refused}"
        );
    }

    #[test]
    fn http_on_loopback_speaks_plain_text_beside_tls() {
        let tls = checked("127.0.0.1:2", FILES).unwrap();
        assert!(tls.http_plain);
        assert_eq!(tls.plaintext, stead_tls::PlainText::Refused);
    }
}
