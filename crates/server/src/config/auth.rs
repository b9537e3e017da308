//! Settings of `[auth]`: how callers prove who they are.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{ConfigError, duration::parse_duration};
use crate::auth::{AuthConfig, AuthMode, IssuerConfig};

/// Longest leeway: more would let a token live on that has been given up.
const LEEWAY_MAX: Duration = Duration::from_secs(300);
/// Longest life of a token that may be allowed.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// HTTP paths that may be opened.
const HTTP_PATHS: [&str; 2] = ["/metrics", "/route"];
/// Most issuers.
const ISSUERS_MAX: usize = 32;
/// Longest name of an issuer: it is a part of identities.
const ISSUER_NAME_MAX: usize = 64;

/// Settings of authentication.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// `open`: everybody may do everything. `required`: callers need a credential and a role.
    pub mode: String,
    /// Issuers of tokens.
    pub issuers: Vec<IssuerEntry>,
    /// Longest difference of clocks that a token's times allow for.
    pub clock_leeway: String,
    /// Longest time from a token's issue to its end.
    pub token_lifetime_max: String,
    /// HTTP paths that answer without a credential: `/metrics`, `/route`.
    pub http_open: Vec<String>,
}

/// Issuer of tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerEntry {
    /// Its name: the claim `iss` of its tokens.
    pub name: String,
    /// File with its Ed25519 public keys in PEM.
    pub public_key_file: String,
    /// Whether its tokens may give roles, by the claim `stead_roles`.
    #[serde(default)]
    pub grants_roles: bool,
    /// Whether its tokens are for emergencies.
    #[serde(default)]
    pub emergency: bool,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: "open".into(),
            issuers: Vec::new(),
            clock_leeway: "1m".into(),
            token_lifetime_max: "24h".into(),
            http_open: Vec::new(),
        }
    }
}

impl Auth {
    /// Validates every value.
    pub(super) fn validate(&self) -> Result<AuthConfig, ConfigError> {
        let mode = match self.mode.as_str() {
            "open" => AuthMode::Open,
            "required" => AuthMode::Required,
            other => {
                let problem =
                    format!("{other:?} is no mode: use required, or open, which lets everybody do everything");
                return Err(ConfigError::value("auth.mode", problem));
            }
        };
        if let Some(path) = self.http_open.iter().find(|path| !HTTP_PATHS.contains(&path.as_str())) {
            let problem = format!("{path:?} cannot be opened: name {}", HTTP_PATHS.join(" or "));
            return Err(ConfigError::value("auth.http_open", problem));
        }
        Ok(AuthConfig {
            mode,
            issuers: self.issuers()?,
            clock_leeway: bounded("auth.clock_leeway", &self.clock_leeway, LEEWAY_MAX)?,
            token_lifetime_max: bounded("auth.token_lifetime_max", &self.token_lifetime_max, LIFETIME_MAX)?,
            http_open: self.http_open.clone(),
        })
    }

    fn issuers(&self) -> Result<Vec<IssuerConfig>, ConfigError> {
        if self.issuers.len() > ISSUERS_MAX {
            let problem = format!(
                "{} issuers are named, at most {ISSUERS_MAX} are possible",
                self.issuers.len()
            );
            return Err(ConfigError::value("auth.issuers", problem));
        }
        let mut issuers: Vec<IssuerConfig> = Vec::new();
        for (position, entry) in self.issuers.iter().enumerate() {
            let key = |field: &str| format!("auth.issuers[{position}].{field}");
            let is_name = entry.name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
            if entry.name.is_empty() || entry.name.len() > ISSUER_NAME_MAX || !is_name {
                let problem = format!(
                    "{:?} is no name of an issuer: 1 to {ISSUER_NAME_MAX} printable ASCII characters without spaces and /",
                    entry.name
                );
                return Err(ConfigError::value(key("name"), problem));
            }
            if issuers.iter().any(|other| other.name == entry.name) {
                return Err(ConfigError::value(
                    key("name"),
                    format!("two issuers are named {:?}", entry.name),
                ));
            }
            issuers.push(IssuerConfig {
                name: entry.name.clone(),
                public_key_file: PathBuf::from(&entry.public_key_file),
                grants_roles: entry.grants_roles,
                is_emergency: entry.emergency,
            });
        }
        Ok(issuers)
    }
}

fn bounded(key: &str, text: &str, max: Duration) -> Result<Duration, ConfigError> {
    let time = parse_duration(key, text)?;
    if time <= max {
        return Ok(time);
    }
    let problem = format!("{text} is longer than {} s", max.as_secs());
    Err(ConfigError::value(key, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(&mut Auth)) -> String {
        let mut auth = Auth::default();
        change(&mut auth);
        auth.validate().unwrap_err().to_string()
    }

    fn issuer(name: &str) -> IssuerEntry {
        IssuerEntry {
            name: name.into(),
            public_key_file: "corp.pem".into(),
            grants_roles: false,
            emergency: false,
        }
    }

    #[test]
    fn invalid_setting_is_named() {
        Auth::default().validate().unwrap();
        assert!(problem(|auth| auth.mode = "off".into()).starts_with("auth.mode: \"off\" is no mode"));
        assert!(problem(|auth| auth.http_open = vec!["/readyz".into()]).starts_with("auth.http_open: \"/readyz\""));
        assert!(problem(|auth| auth.clock_leeway = "1h".into()).starts_with("auth.clock_leeway: 1h is longer"));
        assert!(problem(|auth| auth.token_lifetime_max = "1y".into()).starts_with("auth.token_lifetime_max"));
        for name in ["", "a b", "a/b"] {
            assert!(problem(|auth| auth.issuers = vec![issuer(name)]).starts_with("auth.issuers[0].name"));
        }
        let twice = problem(|auth| auth.issuers = vec![issuer("corp"), issuer("corp")]);
        assert_eq!(twice, "auth.issuers[1].name: two issuers are named \"corp\"");
    }
}
