//! Choice of the cluster: flag, then environment, then context, then a node on this machine.
//!
//! Contexts are in `~/.config/stead/config.toml`; `stead dev` keeps its own beside them, in `dev.toml`, a second
//! one that runs at the same time in `dev2.toml`, and so on:
//!
//! ```toml
//! current = "production"
//! [context.production]
//! endpoints = ["10.0.0.1:7401", "10.0.0.2:7401"]
//! region = "eu-west"
//! ca = "/etc/stead/ca.crt"
//! certificate = "/etc/stead/operator-ada.crt"
//! key = "/etc/stead/operator-ada.key"
//! token_file = "/home/ada/.config/stead/token"
//! ```

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stead_client::{Client, Config, ErrorKind, TlsFiles, TokenSource, dial};
use stead_types::RegionName;

use crate::{
    args::Target,
    exit::{Code, CommandError},
};

/// Default endpoint.
const ENDPOINT_DEFAULT: &str = "127.0.0.1:7401";
/// Timeout of connecting: people wait for it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Most clusters of `stead dev` that run at the same time and have contexts.
pub(crate) const DEV_CLUSTERS_MAX: usize = 9;
/// Environment variable that names the folder of configurations.
pub(crate) const CONFIG_HOME: &str = "XDG_CONFIG_HOME";
const USER_FILE: &str = "config.toml";

/// File of contexts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Contexts {
    /// Name of the default context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// Contexts by name.
    pub(crate) context: BTreeMap<String, Context>,
}

/// Connection settings of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Context {
    /// Addresses of nodes to begin with.
    pub(crate) endpoints: Vec<String>,
    /// Region of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) region: Option<String>,
    /// File with the certificates of the cluster's CA; absent: plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    /// File with the certificate to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<PathBuf>,
    /// File with its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
    /// File with the bearer token of calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// Advertised addresses, and the addresses to dial instead.
    pub(crate) dial: BTreeMap<String, String>,
}

/// Returns the folder of contexts; `None` without a home folder.
pub(crate) fn folder() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set(CONFIG_HOME)
        .or_else(|| set("HOME").map(|home| home.join(".config")))
        .map(|home| context_folder(&home))
}

/// Returns the folder of contexts below a folder of configurations.
pub(crate) fn context_folder(home: &Path) -> PathBuf {
    home.join("stead")
}

/// Returns the name of the file with the contexts of a running `stead dev`, counted from 1.
pub(crate) fn dev_file(number: usize) -> String {
    match number {
        1 => "dev.toml".to_owned(),
        number => format!("dev{number}.toml"),
    }
}

/// Reads the contexts of all clusters of `stead dev`; the default is the first one's.
fn read_dev(folder: &Path) -> Result<Contexts, CommandError> {
    let mut all = Contexts::default();
    for number in 1..=DEV_CLUSTERS_MAX {
        let of_one = read(&folder.join(dev_file(number)))?;
        all.current = all.current.or(of_one.current);
        all.context.extend(of_one.context);
    }
    Ok(all)
}

/// Connects to the target cluster.
pub(crate) async fn connect(target: &Target) -> Result<Client, CommandError> {
    let config = config(target)?;
    let guessed = config.endpoints == [ENDPOINT_DEFAULT];
    let region = config.region.clone();
    let client = Client::connect(config).await.map_err(|error| {
        let no_node = guessed && error.kind == ErrorKind::Unavailable;
        let failure = CommandError::from(error);
        if no_node {
            failure.hint("`stead dev` runs a cluster on this machine; another one is named with --endpoint host:port")
        } else {
            failure
        }
    })?;
    let regions = client.regions().into_iter().map(|(region, _)| region.name);
    check_region(region.as_ref(), &regions.collect::<Vec<_>>())?;
    Ok(client)
}

/// Rejects a region that the cluster does not have: all regions would seem equally far away.
fn check_region(region: Option<&RegionName>, regions: &[RegionName]) -> Result<(), CommandError> {
    match region {
        Some(region) if !regions.contains(region) => {
            let what = format!("--region: the cluster has no region {region}");
            Err(CommandError::new(Code::Usage, what).hint(format!("one of {}", crate::output::list(regions))))
        }
        Some(_) | None => Ok(()),
    }
}

fn config(target: &Target) -> Result<Config, CommandError> {
    let context = context(target, folder().as_deref())?;
    let mut config = Config::new(context.endpoints.clone());
    let region = target.region.clone().or(context.region.clone());
    let parsed = region.map(|region| region.parse::<RegionName>()).transpose();
    config.region = parsed.map_err(|error| CommandError::new(Code::Usage, format!("--region: {error}")))?;
    config.tls = tls_files(target, &context)?;
    config.connect = dial(context.dial);
    if let Some(file) = target.token_file.clone().or(context.token_file) {
        config.token = TokenSource::file(file).map_err(|error| CommandError::new(Code::Usage, error.message))?;
    }
    config.connect_timeout = CONNECT_TIMEOUT;
    if let Some(timeout) = target.timeout {
        config.timeout = timeout;
        config.connect_timeout = timeout;
    }
    Ok(config)
}

/// Returns the files of TLS: flags override the context's.
fn tls_files(target: &Target, context: &Context) -> Result<Option<TlsFiles>, CommandError> {
    let chosen = |flag: &Option<PathBuf>, context: &Option<PathBuf>| flag.clone().or_else(|| context.clone());
    let (certificate, key) = (
        chosen(&target.certificate, &context.certificate),
        chosen(&target.certificate_key, &context.key),
    );
    match chosen(&target.ca, &context.ca) {
        Some(ca) => Ok(Some(TlsFiles { ca, certificate, key })),
        None if certificate.is_some() || key.is_some() => {
            let message = "--certificate and --certificate-key need --ca: the file of the cluster's CA";
            Err(CommandError::new(Code::Usage, message))
        }
        None => Ok(None),
    }
}

/// Finds the context. An endpoint overrides the context's endpoints, and its dial map and region do not apply to it.
fn context(target: &Target, folder: Option<&Path>) -> Result<Context, CommandError> {
    if !target.endpoint.is_empty() {
        return Ok(Context {
            endpoints: target.endpoint.clone(),
            ..Context::default()
        });
    }
    let user = folder.map_or_else(|| Ok(Contexts::default()), |folder| read(&folder.join(USER_FILE)))?;
    let dev = folder.map_or_else(|| Ok(Contexts::default()), read_dev)?;
    let Some(name) = target.context.clone().or(user.current).or(dev.current) else {
        return Ok(Context {
            endpoints: vec![ENDPOINT_DEFAULT.into()],
            ..Context::default()
        });
    };
    let known: Vec<&String> = user.context.keys().chain(dev.context.keys()).collect();
    let unknown = CommandError::new(Code::Usage, format!("there is no context {name:?}"));
    let hint = match known.as_slice() {
        [] => "no contexts are known: name a node with --endpoint host:port".to_owned(),
        known => format!("one of {}", crate::output::list(known)),
    };
    user.context
        .get(&name)
        .or_else(|| dev.context.get(&name))
        .cloned()
        .ok_or_else(|| unknown.hint(hint))
}

fn read(path: &Path) -> Result<Contexts, CommandError> {
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|error| {
            CommandError::new(
                Code::Usage,
                format!("{} cannot be read: {}", path.display(), error.message()),
            )
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Contexts::default()),
        Err(error) => Err(CommandError::new(
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
    fn flag_overrides_context_and_context_overrides_default() {
        let folder = tempfile::tempdir().unwrap();
        let found = |target| context(&target, Some(folder.path()));
        assert_eq!(found(target(&[], None)).unwrap().endpoints, [ENDPOINT_DEFAULT]);
        let text = "current = \"a\"\n[context.a]\nendpoints = [\"a:1\"]\n[context.b]\nendpoints = [\"b:1\"]\n";
        fs::write(folder.path().join(USER_FILE), text).unwrap();
        fs::write(
            folder.path().join(dev_file(1)),
            "[context.dev-eu]\nendpoints = [\"eu:1\"]\n",
        )
        .unwrap();
        fs::write(
            folder.path().join(dev_file(2)),
            "[context.dev2-eu]\nendpoints = [\"eu:2\"]\n",
        )
        .unwrap();
        assert_eq!(found(target(&[], Some("dev2-eu"))).unwrap().endpoints, ["eu:2"]);
        assert_eq!(found(target(&[], None)).unwrap().endpoints, ["a:1"]);
        assert_eq!(found(target(&[], Some("b"))).unwrap().endpoints, ["b:1"]);
        assert_eq!(found(target(&[], Some("dev-eu"))).unwrap().endpoints, ["eu:1"]);
        assert_eq!(found(target(&["c:1"], Some("b"))).unwrap().endpoints, ["c:1"]);
        assert!(found(target(&[], Some("z"))).is_err());
    }
    #[test]
    fn unknown_region_is_rejected() {
        let region = |name: &str| name.parse::<RegionName>().unwrap();
        let regions = [region("eu-west"), region("us-east")];
        assert!(check_region(None, &regions).is_ok());
        assert!(check_region(Some(&regions[1]), &regions).is_ok());
        assert!(check_region(Some(&region("nope")), &regions).is_err());
    }
}
