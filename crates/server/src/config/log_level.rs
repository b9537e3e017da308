//! Check of the log filter, whose own parser takes any word for the name of a part of the program and logs nothing else.

use super::ConfigError;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
const KEY: &str = "log.level";

/// Rejects a filter with a word that is neither a level nor `target=level`.
pub(super) fn check(filter: &str) -> Result<(), ConfigError> {
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    for directive in filter.split(',').map(str::trim) {
        // A span in brackets may hold anything; the parser checks it.
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !is_level(level) && !directive.contains('[') {
            let problem = format!(
                "{directive:?} is no filter: use {}, or target=level such as stead_raft=debug, separated by commas",
                LEVELS.join(", ")
            );
            return Err(ConfigError::value(KEY, problem));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_of_levels_and_targets_is_taken_and_words_are_not() {
        for taken in [
            "info",
            "WARN",
            "stead_raft=debug,info",
            "info, h2=off",
            "[call{tenant=acme}]=debug",
        ] {
            assert!(check(taken).is_ok(), "{taken}");
        }
        for refused in ["", "loud", "info,loud", "stead_raft=loud", "stead_raft"] {
            let error = check(refused).unwrap_err().to_string();
            assert!(error.starts_with("log.level: "), "{error}");
            assert!(error.contains("target=level"), "{error}");
        }
    }
}
