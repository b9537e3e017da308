//! Durations in a configuration.

use std::time::Duration;

use super::ConfigError;

/// Parses a duration, such as `300ms`; the error names the setting.
pub(super) fn parse_duration(key: &str, text: &str) -> Result<Duration, ConfigError> {
    let problem = |_| ConfigError::value(key, format!("{text:?} is no duration, such as 300ms or 24h"));
    humantime::parse_duration(text).map_err(problem)
}
