//! Which cluster a command talks to: flag, then environment, then context, then a node on this machine.
//!
//! Contexts are in `~/.config/stead/config.toml`; `stead dev` keeps its own beside them, in `dev.toml`:
//!
//! ```toml
//! current = "production"
//! [context.production]
//! endpoints = ["10.0.0.1:7401", "10.0.0.2:7401"]
//! region = "eu-west"
//! ```

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stead_client::{Client, Config, ErrorKind, dial};
use stead_types::RegionName;

use crate::{
    args::Target,
    exit::{Code, Failure},
};

/// Where a node is looked for if nobody says.
const ENDPOINT_DEFAULT: &str = "127.0.0.1:7401";
/// How long a node is looked for: people wait for it.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// The contexts of `stead dev`.
pub(crate) const DEV: &str = "dev.toml";
/// The variable that names a folder of configurations.
pub(crate) const HOME: &str = "XDG_CONFIG_HOME";
const OWN: &str = "config.toml";

/// A file of contexts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The one that is used if none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// By name.
    pub(crate) context: BTreeMap<String, Context>,
}

/// How to reach a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Context {
    /// Nodes to begin with.
    pub(crate) endpoints: Vec<String>,
    /// Where this machine stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) region: Option<String>,
    /// Advertised addresses, and what to dial instead.
    pub(crate) dial: BTreeMap<String, String>,
}

/// Returns the folder of contexts, `None` without a home.
pub(crate) fn folder() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set(HOME)
        .or_else(|| set("HOME").map(|home| home.join(".config")))
        .map(|home| below(&home))
}

/// Returns the folder of contexts below a folder of configurations.
pub(crate) fn below(home: &Path) -> PathBuf {
    home.join("stead")
}

/// Connects to the cluster that the command means.
pub(crate) async fn connect(target: &Target) -> Result<Client, Failure> {
    let config = config(target)?;
    let guessed = config.endpoints == [ENDPOINT_DEFAULT];
    let region = config.region.clone();
    let client = Client::connect(config).await.map_err(|error| {
        let nobody = guessed && error.kind == ErrorKind::Unavailable;
        let failure = Failure::from(error);
        if nobody {
            failure.hint("`stead dev` runs a cluster on this machine; another one is named with --endpoint host:port")
        } else {
            failure
        }
    })?;
    let regions = client.regions().into_iter().map(|(region, _)| region.name);
    among(region.as_ref(), &regions.collect::<Vec<_>>())?;
    Ok(client)
}

/// Refuses a region that the cluster does not have: every other would seem as far away as the next.
fn among(region: Option<&RegionName>, regions: &[RegionName]) -> Result<(), Failure> {
    match region {
        Some(region) if !regions.contains(region) => {
            let what = format!("--region: the cluster has no region {region}");
            Err(Failure::new(Code::Usage, what).hint(format!("one of {}", crate::output::list(regions))))
        }
        Some(_) | None => Ok(()),
    }
}

fn config(target: &Target) -> Result<Config, Failure> {
    let context = context(target, folder().as_deref())?;
    let mut config = Config::new(context.endpoints);
    let region = target.region.clone().or(context.region);
    let parsed = region.map(|region| region.parse::<RegionName>()).transpose();
    config.region = parsed.map_err(|error| Failure::new(Code::Usage, format!("--region: {error}")))?;
    config.connect = dial(context.dial);
    config.connect_timeout = CONNECT_WITHIN;
    if let Some(timeout) = target.timeout {
        config.timeout = timeout;
        config.connect_timeout = timeout;
    }
    Ok(config)
}

/// Finds the context. An endpoint stands over the context's endpoints, and its map and region do not apply to it.
fn context(target: &Target, folder: Option<&Path>) -> Result<Context, Failure> {
    if !target.endpoint.is_empty() {
        return Ok(Context {
            endpoints: target.endpoint.clone(),
            ..Context::default()
        });
    }
    let own = folder.map_or_else(|| Ok(Contexts::default()), |folder| read(&folder.join(OWN)))?;
    let dev = folder.map_or_else(|| Ok(Contexts::default()), |folder| read(&folder.join(DEV)))?;
    let Some(name) = target.context.clone().or(own.current).or(dev.current) else {
        return Ok(Context {
            endpoints: vec![ENDPOINT_DEFAULT.into()],
            ..Context::default()
        });
    };
    let known: Vec<&String> = own.context.keys().chain(dev.context.keys()).collect();
    let unknown = Failure::new(Code::Usage, format!("there is no context {name:?}"));
    let hint = match known.as_slice() {
        [] => "no contexts are known: name a node with --endpoint host:port".to_owned(),
        known => format!("one of {}", crate::output::list(known)),
    };
    own.context
        .get(&name)
        .or_else(|| dev.context.get(&name))
        .cloned()
        .ok_or_else(|| unknown.hint(hint))
}

fn read(path: &Path) -> Result<Contexts, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|error| {
            Failure::new(
                Code::Usage,
                format!("{} cannot be read: {}", path.display(), error.message()),
            )
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Contexts::default()),
        Err(error) => Err(Failure::new(
            Code::Usage,
            format!("{} cannot be read: {error}", path.display()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(endpoint: &[&str], context: Option<&str>) -> Target {
        Target {
            endpoint: endpoint.iter().map(ToString::to_string).collect(),
            context: context.map(Into::into),
            ..Target::default()
        }
    }

    #[test]
    fn a_flag_stands_over_the_context_and_the_context_over_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let found = |target| context(&target, Some(folder.path()));
        assert_eq!(found(target(&[], None)).unwrap().endpoints, [ENDPOINT_DEFAULT]);
        let text = "current = \"a\"\n[context.a]\nendpoints = [\"a:1\"]\n[context.b]\nendpoints = [\"b:1\"]\n";
        fs::write(folder.path().join(OWN), text).unwrap();
        fs::write(folder.path().join(DEV), "[context.dev-eu]\nendpoints = [\"eu:1\"]\n").unwrap();
        assert_eq!(found(target(&[], None)).unwrap().endpoints, ["a:1"]);
        assert_eq!(found(target(&[], Some("b"))).unwrap().endpoints, ["b:1"]);
        assert_eq!(found(target(&[], Some("dev-eu"))).unwrap().endpoints, ["eu:1"]);
        assert_eq!(found(target(&["c:1"], Some("b"))).unwrap().endpoints, ["c:1"]);
        assert!(found(target(&[], Some("z"))).is_err());
    }
    #[test]
    fn a_region_that_the_cluster_has_not_is_refused() {
        let region = |name: &str| name.parse::<RegionName>().unwrap();
        let regions = [region("eu-west"), region("us-east")];
        assert!(among(None, &regions).is_ok());
        assert!(among(Some(&regions[1]), &regions).is_ok());
        assert!(among(Some(&region("nope")), &regions).is_err());
    }
}
