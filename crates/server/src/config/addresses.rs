//! Rules about the addresses of a cluster.

use std::collections::BTreeMap;

use super::{ConfigError, NodeConfig};

/// Checks that an address is one that others can dial.
pub(super) fn check_advertised(key: &str, address: &str) -> Result<(), ConfigError> {
    let host = check_host_port(key, address)?;
    if matches!(host, "0.0.0.0" | "[::]" | "") {
        let problem = format!("{address} is no address that others can dial: name this machine's own");
        return Err(ConfigError::value(key, problem));
    }
    if address.ends_with(":0") {
        let problem = format!("{address} has no port that others can dial: choose one, 1 to 65535");
        return Err(ConfigError::value(key, problem));
    }
    Ok(())
}

/// Checks a `host:port` and returns its host.
pub(super) fn check_host_port<'a>(key: &str, address: &'a str) -> Result<&'a str, ConfigError> {
    match address.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => Ok(host),
        _ => Err(ConfigError::value(key, format!("{address:?} is no host:port"))),
    }
}

/// Rejects an address that two listeners of the cluster would have.
pub(super) fn check_distinct(members: &[NodeConfig]) -> Result<(), ConfigError> {
    let mut owners: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for member in members {
        let addresses = [
            ("peer", &member.peer),
            ("client", &member.client),
            ("http", &member.http),
        ];
        for (kind, address) in addresses.into_iter().filter(|(_, address)| !address.is_empty()) {
            let owner = (member.name.as_str(), kind);
            if let Some((other, other_kind)) = owners.insert(address, owner) {
                let problem = format!(
                    "{address} is the {other_kind} address of {other} and the {kind} address of {}: every listener needs its own",
                    member.name
                );
                return Err(ConfigError::value("cluster.initial", problem));
            }
        }
    }
    Ok(())
}

/// Checks the addresses that are dialled instead of others.
pub(super) fn check_dial(dial: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    for (advertised, dialled) in dial {
        let key = format!("net.dial.{advertised:?}");
        check_host_port(&key, advertised)?;
        check_advertised(&key, dialled)?;
    }
    Ok(())
}
