//! `stead config default`: every setting, its default and its meaning.

use crate::{exit::CommandError, output};

/// Compared with the server's own list and defaults by a test.
pub(crate) const TEXT: &str = include_str!("default.toml");

pub(crate) fn run() -> Result<(), CommandError> {
    output::bytes(TEXT.as_bytes())
}

#[cfg(test)]
mod tests {
    use stead_server::config::{Config, KEYS};

    use super::TEXT;

    #[test]
    fn default_config_lists_every_setting_with_default() {
        let config = Config::load(TEXT, []).unwrap();
        config.validate().unwrap();
        for key in KEYS {
            let (section, key) = key.split_once('.').unwrap();
            let shown = TEXT
                .lines()
                .any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
            let a_table = TEXT.lines().any(|line| line == format!("[{section}.{key}]"));
            assert!(shown || a_table, "{section}.{key} is not shown");
        }
        let defaults = Config::default();
        assert_eq!(config.storage, defaults.storage);
        assert_eq!(config.log, defaults.log);
        assert_eq!(config.node.data_dir, defaults.node.data_dir);
        assert_eq!(config.node.shutdown_timeout, defaults.node.shutdown_timeout);
        assert_eq!(config.cluster.directory_rtt_max, defaults.cluster.directory_rtt_max);
        assert_eq!(config.cluster.name, defaults.cluster.name);
        assert_eq!(config.cluster.groups_per_region, defaults.cluster.groups_per_region);
    }
}
