//! Joining of a node that was announced: before its first start it asks the cluster who it is, and keeps the answer in its
//! data directory.
//!
//! ```text
//!   token, durable ──Join(name, token, addresses)──> any node ──> directory ──> number, region ──> joined.json, durable
//! ```
//!
//! # Invariants
//!
//! 1. The token is on the disk before it is sent: a node that asks again is told the same, another disk is another node.
//! 2. A data directory that belongs to a node never joins again.
//! 3. A node that has started once and lost its log starts no more under its number: it may have voted, and acknowledged
//!    entries.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stead_api::{
    net::{Connect, Keepalive, channel},
    proto::internal::v1::{JoinRequest, JoinResponse, directory_service_client::DirectoryServiceClient},
    status,
};
use stead_state::directory::FEATURE_LEVEL_MAX;
use stead_types::Error as CallError;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::{
    config::{Config, Joined, JoinedVoter},
    tls::{self, DialError},
};

/// Longest time for one node's answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Pause between rounds over the addresses.
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// File of the answer, in the data directory.
const JOINED: &str = "joined.json";
/// File of the token, in the data directory.
const TOKEN: &str = "join.token";
/// File that says which node a data directory belongs to.
const IDENTITY: &str = "stead.json";
/// Folder of the log, in the data directory.
const LOG: &str = "log";

/// Error of a node that cannot join.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] DialError),
    /// The cluster refuses it.
    #[error("the cluster refuses node {name}: {source}")]
    Refused {
        /// Name of the node.
        name: String,
        /// Why.
        source: CallError,
    },
    /// A file cannot be used.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file of the answer cannot be parsed.
    #[error("{path} cannot be parsed: restore it from a backup, or replace the node")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The log of a node that has started before is missing.
    #[error(
        "{dir} has joined the cluster as node {node} and has no log any more: what it has promised to other voters is gone, so \
         it starts no more under this number; `stead node replace {name}` first, then start it with an empty data directory"
    )]
    LogLost {
        /// The data directory.
        dir: PathBuf,
        /// Number of the node.
        node: u64,
        /// Its name.
        name: String,
    },
    /// Addresses are missing.
    #[error("{0}.advertise: a node that joins names the address that others use, host:port")]
    Address(&'static str),
}

/// Answer of the cluster, as the file keeps it.
#[derive(Debug, Serialize, Deserialize)]
struct JoinedFile {
    name: String,
    node: u64,
    region: String,
    witness: bool,
    voters: Vec<JoinedVoter>,
    /// Whether the node has started once, and has a log since then.
    #[serde(default)]
    started: bool,
}

/// Tells whether a node is an initial one, as far as its configuration and its data directory say.
pub fn is_initial(config: &Config) -> bool {
    config.cluster.join.is_empty() && !Path::new(&config.node.data_dir).join(JOINED).exists()
}

/// Tells a configuration who its node is: from the data directory if it has joined, from the cluster if it is to join.
/// Does nothing for an initial node.
///
/// # Errors
///
/// The cluster refuses the node, or a file cannot be used.
pub async fn prepare(config: &mut Config, connect: &Connect, draw: impl FnOnce() -> u128) -> Result<(), Error> {
    if !recall(config)? {
        return Ok(());
    }
    let dir = PathBuf::from(&config.node.data_dir);
    let token = token(&dir, draw)?;
    let request = request(config, &token)?;
    let connect = tls::dial_hosts(&config.tls, connect.clone())?;
    let answer = ask(&config.cluster.join, &connect, &request).await?;
    let file = JoinedFile {
        name: request.name,
        node: answer.node,
        region: answer.region,
        witness: answer.witness,
        voters: answer.voters.into_iter().map(voter).collect(),
        started: false,
    };
    info!(node = file.node, region = file.region, "joined the cluster");
    store(&dir, &file)?;
    config.joined = Some(joined(file));
    Ok(())
}

/// Tells a configuration who its node is, if its data directory does. Returns whether only the cluster can tell.
///
/// # Errors
///
/// A file cannot be used.
pub fn recall(config: &mut Config) -> Result<bool, Error> {
    let dir = PathBuf::from(&config.node.data_dir);
    if let Some(file) = read(&dir)? {
        check_log(&dir, &file)?;
        config.joined = Some(joined(file));
        return Ok(false);
    }
    // Invariant 2.
    Ok(!config.cluster.join.is_empty() && !dir.join(IDENTITY).exists())
}

/// Records that a node that has joined has a log from now on, before it votes (invariant 3). Does nothing for a first node.
///
/// # Errors
///
/// The file cannot be used.
pub(crate) fn record_start(dir: &Path) -> Result<(), Error> {
    match read(dir)? {
        Some(file) if !file.started => store(dir, &JoinedFile { started: true, ..file }),
        Some(_) | None => Ok(()),
    }
}

/// Checks that a node that has started before still has a log (invariant 3).
fn check_log(dir: &Path, file: &JoinedFile) -> Result<(), Error> {
    let is_empty = fs::read_dir(dir.join(LOG)).map_or(true, |mut files| files.next().is_none());
    if file.started && is_empty {
        return Err(Error::LogLost {
            dir: dir.to_owned(),
            node: file.node,
            name: file.name.clone(),
        });
    }
    Ok(())
}

fn store(dir: &Path, file: &JoinedFile) -> Result<(), Error> {
    let path = dir.join(JOINED);
    match serde_json::to_vec_pretty(file) {
        Ok(text) => write(&path, &text),
        Err(source) => Err(Error::Malformed { path, source }),
    }
}

fn voter(voter: stead_api::proto::internal::v1::DirectoryVoter) -> JoinedVoter {
    JoinedVoter {
        node: voter.node,
        name: voter.name,
        region: voter.region,
        peer: voter.peer_address,
        client: voter.client_address,
    }
}

fn joined(file: JoinedFile) -> Joined {
    Joined {
        name: file.name,
        node: file.node,
        region: file.region,
        witness: file.witness,
        voters: file.voters,
    }
}

fn read(dir: &Path) -> Result<Option<JoinedFile>, Error> {
    let path = dir.join(JOINED);
    match fs::read(&path) {
        Ok(bytes) => {
            let file = serde_json::from_slice(&bytes).map_err(|source| Error::Malformed { path, source })?;
            Ok(Some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path, source }),
    }
}

/// Returns the token of a data directory, which is made the first time (invariant 1).
fn token(dir: &Path, draw: impl FnOnce() -> u128) -> Result<Vec<u8>, Error> {
    let path = dir.join(TOKEN);
    match fs::read(&path) {
        Ok(token) if token.len() == size_of::<u128>() => Ok(token),
        Ok(_) => new_token(dir, &path, draw()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => new_token(dir, &path, draw()),
        Err(source) => Err(Error::File { path, source }),
    }
}

fn new_token(dir: &Path, path: &Path, drawn: u128) -> Result<Vec<u8>, Error> {
    fs::create_dir_all(dir).map_err(|source| Error::File {
        path: dir.to_owned(),
        source,
    })?;
    let token = drawn.max(1).to_be_bytes().to_vec();
    write(path, &token)?;
    Ok(token)
}

/// Writes a file durably, complete or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let next = path.with_extension("new");
    let written = || -> io::Result<()> {
        let mut file = File::create(&next)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&next, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    written().map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

fn request(config: &Config, token: &[u8]) -> Result<JoinRequest, Error> {
    let listed = config
        .cluster
        .initial
        .iter()
        .find(|listed| listed.name == config.node.name);
    let address = |own: &str, listed: Option<&str>| match own {
        "" => listed.unwrap_or_default().to_owned(),
        own => own.to_owned(),
    };
    let request = JoinRequest {
        cluster: config.cluster.name.clone(),
        name: config.node.name.clone(),
        token: token.to_vec().into(),
        client_address: address(&config.client.advertise, listed.map(|listed| listed.client.as_str())),
        peer_address: address(&config.peer.advertise, listed.map(|listed| listed.peer.as_str())),
        http_address: address(&config.http.advertise, listed.map(|listed| listed.http.as_str())),
        feature_level: FEATURE_LEVEL_MAX,
    };
    for (what, address) in [("client", &request.client_address), ("peer", &request.peer_address)] {
        if address.is_empty() {
            return Err(Error::Address(what));
        }
    }
    Ok(request)
}

/// Asks one address after the other until one answers or the cluster refuses.
async fn ask(addresses: &[String], connect: &Connect, request: &JoinRequest) -> Result<JoinResponse, Error> {
    let mut logged = String::new();
    loop {
        for address in addresses {
            let problem = match ask_one(address, connect, request).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_transient() => format!("{address}: {}", error.message),
                Err(source) => {
                    let name = request.name.clone();
                    return Err(Error::Refused { name, source });
                }
            };
            if problem != logged {
                warn!(problem, "cannot join yet: trying on");
                logged = problem;
            }
        }
        sleep(ROUND_PAUSE).await;
    }
}

async fn ask_one(address: &str, connect: &Connect, request: &JoinRequest) -> Result<JoinResponse, CallError> {
    let unavailable = |why: String| CallError::new(stead_types::ErrorKind::Unavailable, why);
    let channel = channel(connect, address, Keepalive::PEER).map_err(|error| unavailable(error.to_string()))?;
    let mut client = DirectoryServiceClient::new(channel);
    match timeout(ANSWER_MAX, client.join(request.clone())).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(status::from_status(&status)),
        Err(_) => Err(unavailable("no answer in time".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = token(dir.path(), rand::random).unwrap();
        assert_eq!(first.len(), 16);
        assert_eq!(token(dir.path(), rand::random).unwrap(), first, "invariant 1");
        fs::remove_file(dir.path().join(TOKEN)).unwrap();
        assert_ne!(
            token(dir.path(), rand::random).unwrap(),
            first,
            "another disk is another node"
        );
    }

    #[test]
    fn answer_is_read_back_and_malformed_file_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_none());
        let file = JoinedFile {
            name: "eu-4".into(),
            node: 10,
            region: "eu".into(),
            witness: false,
            voters: Vec::new(),
            started: false,
        };
        write(&dir.path().join(JOINED), &serde_json::to_vec(&file).unwrap()).unwrap();
        assert_eq!(read(dir.path()).unwrap().map(|joined| joined.node), Some(10));
        write(&dir.path().join(JOINED), b"{").unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("cannot be parsed"));
    }

    #[test]
    fn node_that_started_and_lost_its_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let check = || check_log(dir.path(), &read(dir.path()).unwrap().unwrap());
        // As versions before feature level 6 wrote it.
        let before = br#"{"name":"eu-4","node":10,"region":"eu","witness":false,"voters":[]}"#;
        write(&dir.path().join(JOINED), before).unwrap();
        check().expect("it has not started yet");
        record_start(dir.path()).unwrap();
        let refused = check().unwrap_err().to_string();
        assert!(refused.contains("as node 10 and has no log"), "invariant 3: {refused}");
        assert!(refused.contains("`stead node replace eu-4` first"), "{refused}");
        fs::create_dir(dir.path().join(LOG)).unwrap();
        assert!(check().is_err(), "an empty folder is no log");
        fs::write(dir.path().join(LOG).join("1"), "").unwrap();
        check().unwrap();
        record_start(dir.path()).unwrap();
        check().unwrap();
    }
}
