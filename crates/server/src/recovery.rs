//! Recovery of a directory whose majority is lost for good, on the disk of a voter whose node is stopped.
//!
//! ```text
//!   survey: who answers? ──> rows and whole log of this voter ──> state::directory::recover ──> RECOVERING
//!     ──> rows and view of the new incarnation, durable ──> log erased ──> RECOVERING removed
//! ```
//!
//! # Invariants
//!
//! 1. Nothing is written while another voter answers: together they may be a majority, or have a newer state.
//! 2. A recovery that was interrupted is finished by the same command, and the node does not start before that.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use stead_api::{
    net::{Connect, Keepalive, channel},
    proto::{
        admin::v1::{GetNodeRequest, node_service_client::NodeServiceClient},
        internal::v1::{ReadVersionRequest, directory_service_client::DirectoryServiceClient},
    },
};
use stead_raft::{LogEnd, UnappliedEntries};
use stead_state::directory::{AuditContext, Directory, RecoveredDirectory, RecoveryRejection, RecoveryRequest};
use stead_store::{
    Store,
    directory::{DirectoryAt, DirectoryMachine},
    machine::{Machine, MachineError},
};
use stead_types::{DirectoryVersion, GroupId, Incarnation, NodeId};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    admin_peers::{await_response, peer_request},
    config::{NodeConfig, ValidatedConfig},
    environment::Environment,
    node,
    storage::{StoredState, open_for_recovery},
    tls::NodeTls,
};

/// Longest time for another node to answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Error of a recovery. Nothing was written, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage cannot be opened or read.
    #[error(transparent)]
    Storage(#[from] node::Error),
    /// The node is no voter.
    #[error("node {node} is not a voter of the directory: recover on one that is, {}", .voters.join(" or "))]
    NotVoter {
        /// This node.
        node: String,
        /// The voters.
        voters: Vec<String>,
    },
    /// It is the only voter.
    #[error("node {0} is the only voter of the directory: start it, there is no majority to recover")]
    OnlyVoter(String),
    /// Another voter answers.
    #[error(
        "voter {} of the directory answers: start this node, and they are the majority; if the directory has five voters and \
         no majority, stop that node, compare the ends of the logs that --dry-run shows on each, and recover on the greatest",
        .0.join(" and ")
    )]
    VoterAnswers(Vec<String>),
    /// Voters are not among those whose loss was confirmed.
    #[error("nobody has said that voter {} is lost for good: name it with --lost if its disk is gone", .0.join(" and "))]
    NotNamed(Vec<String>),
    /// Nodes have seen changes that this voter does not have.
    #[error(
        "the directory was seen at {version} by {}, and this voter's state ends at {own}: the changes between are lost if it is \
         taken; bring back a voter that has them, or accept that with --allow-loss",
        .nodes.join(", ")
    )]
    Newer {
        /// The nodes.
        nodes: Vec<String>,
        /// The highest version that they have seen.
        version: DirectoryVersion,
        /// Version of this voter's state.
        own: DirectoryVersion,
    },
    /// The log cannot be read.
    #[error("the log of the directory cannot be read")]
    Log(#[source] std::io::Error),
    /// The rows cannot be read or written.
    #[error(transparent)]
    Rows(#[from] MachineError),
    /// The state does not permit it.
    #[error(transparent)]
    Rejected(#[from] RecoveryRejection),
    /// The new incarnation is not completely on the disk.
    #[error("the recovery was interrupted: give the same command again")]
    Interrupted(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Decisions of the operator.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names of the voters that are lost for good.
    pub lost: Vec<String>,
    /// Longest lease ttl that was ever in force, where it is longer than the state knows.
    pub lease_ttl: Option<Duration>,
    /// Whether changes may be lost that other nodes have seen.
    pub allow_loss: bool,
    /// Who asked for it.
    pub who: String,
    /// Why.
    pub reason: String,
}

/// Plan of a recovery.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of this node.
    pub node: String,
    /// The new incarnation.
    pub incarnation: Incarnation,
    /// Version of this voter's state, its whole log included.
    pub version: DirectoryVersion,
    /// End of its log.
    pub log_end: LogEnd,
    /// Logged time there, in milliseconds since 1970.
    pub time: u64,
    /// Names of the other voters.
    pub others: Vec<String>,
    /// Other nodes that answer, with the directory version that each has seen.
    pub seen: Vec<SeenVersion>,
    /// Names of other nodes that do not answer.
    pub silent: Vec<String>,
    /// Number of tenants that are fenced, and served again once the groups have told what they hold.
    pub tenants: u64,
    /// Number of the operation that promotes them; `None` if there is none.
    pub operation: Option<u64>,
    /// Time for which leases of the lost incarnation may still run.
    pub lease_wait: Duration,
}

/// Directory version that a node has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenVersion {
    /// Name of the node.
    pub node: String,
    /// The version.
    pub version: DirectoryVersion,
}

/// Recovery of the directory, with the storage of a stopped node open. Dropping it changes nothing.
pub struct Recovery {
    store: Store,
    stored: StoredState,
    machine: Arc<DirectoryMachine>,
    recovered: RecoveredDirectory,
    plan: Plan,
    /// A recovery that was interrupted after its rows were written.
    is_half_done: bool,
}

/// Returns what the operator has decided, as the directory takes it.
fn request(founder: NodeId, options: &Options) -> RecoveryRequest {
    let ms = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    RecoveryRequest {
        founder,
        lease_ttl_ms: options.lease_ttl.map_or(0, ms),
        by: AuditContext {
            who: options.who.clone(),
            reason: options.reason.clone(),
        },
    }
}

impl Recovery {
    /// Opens the storage of a stopped node, looks who else answers, and works out the new incarnation.
    ///
    /// # Errors
    ///
    /// The node runs, is no voter, another voter answers, or its state cannot be taken.
    pub async fn open(config: &ValidatedConfig, environment: &Environment, options: &Options) -> Result<Self, Error> {
        let (store, stored) = open_for_recovery(config, &environment.health)?;
        let begun = store.recovery().map_err(node::Error::from)?;
        let Some((_, machine)) = stored.directory.clone() else {
            return Err(Error::NotVoter {
                node: config.node.name.clone(),
                voters: names(config, &stored.directory_voters),
            });
        };
        let log = store.log.group(GroupId::DIRECTORY);
        let reached = machine.read(Directory::incarnation).map_err(MachineError::from)?;
        let is_half_done = begun == Some(reached);
        let unapplied = match is_half_done {
            true => UnappliedEntries {
                entries: Vec::new(),
                end: LogEnd::default(),
            },
            false => UnappliedEntries::read(&*log, &machine.applied()).map_err(Error::Log)?,
        };
        let DirectoryAt { directory, time } = machine.after(unapplied.entries)?;
        let version = directory.view().version();
        let others = directory
            .voters()
            .iter()
            .copied()
            .filter(|voter| *voter != config.node.id);
        let others: Vec<NodeId> = others.collect();
        if others.is_empty() && !is_half_done {
            return Err(Error::OnlyVoter(config.node.name.clone()));
        }
        let environment = NodeTls::load(config)
            .map_err(node::Error::from)?
            .over(environment.clone());
        let survey = Survey::of(config, &environment.connect, &others).await;
        let recovered = directory.recover(time, &request(config.node.id, options))?;
        let settings = recovered.directory.view().settings();
        let plan = Plan {
            node: config.node.name.clone(),
            incarnation: begun
                .filter(|_| is_half_done)
                .unwrap_or(recovered.directory.incarnation()),
            version,
            log_end: unapplied.end,
            time,
            others: names(config, &others),
            seen: survey.seen,
            silent: survey.silent,
            tenants: recovered.tenants,
            operation: recovered.operation,
            lease_wait: Duration::from_millis(settings.longest_lease_ttl_ms(time)),
        };
        if !survey.voters.is_empty() {
            return Err(Error::VoterAnswers(survey.voters));
        }
        Ok(Self {
            store,
            stored,
            machine,
            recovered,
            plan,
            is_half_done,
        })
    }

    /// Returns what it would do.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Closes the storage, and changes nothing.
    ///
    /// # Errors
    ///
    /// A file cannot be synced.
    pub fn close(self) -> Result<(), Error> {
        drop((self.stored, self.machine));
        // Without the mark of an orderly stop the next start only takes longer.
        let _is_closed = self.store.close().map_err(node::Error::from)?;
        Ok(())
    }

    /// Checks that an operator has confirmed what is lost.
    ///
    /// # Errors
    ///
    /// Voters are not named, or nodes have seen a newer state.
    pub fn check(&self, options: &Options) -> Result<(), Error> {
        let unnamed = self.plan.others.iter().filter(|voter| !options.lost.contains(voter));
        let unnamed: Vec<String> = unnamed.cloned().collect();
        if !unnamed.is_empty() {
            return Err(Error::NotNamed(unnamed));
        }
        let own = self.plan.version;
        let newer = self.plan.seen.iter().filter(|seen| seen.version > own);
        let newest = newer.clone().map(|seen| seen.version).max();
        match newest {
            Some(version) if !options.allow_loss && !self.is_half_done => Err(Error::Newer {
                nodes: newer.map(|seen| seen.node.clone()).collect(),
                version,
                own,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Writes the new incarnation, and closes the storage.
    ///
    /// # Errors
    ///
    /// An interrupted recovery has left a mark on the disk, if anything of it was written.
    pub async fn run(self) -> Result<Plan, Error> {
        let Self {
            store,
            stored,
            machine,
            recovered,
            plan,
            is_half_done,
        } = self;
        if !is_half_done {
            let dir = store.dir.as_ref();
            dir.map_or(Ok(()), |dir| dir.begin_recovery(plan.incarnation))
                .map_err(interrupted)?;
            write_rows(&stored, &machine, recovered, plan.time)?;
        }
        let (done, erased) = oneshot::channel();
        store
            .log
            .erase(GroupId::DIRECTORY, Box::new(move |result| drop(done.send(result))));
        erased.await.map_err(interrupted)?.map_err(interrupted)?;
        let dir = store.dir.as_ref();
        dir.map_or(Ok(()), stead_store::data_dir::DataDir::end_recovery)
            .map_err(interrupted)?;
        drop((stored, machine));
        // Without the mark of an orderly stop the next start only takes longer.
        let _is_closed = store.close().map_err(interrupted)?;
        Ok(plan)
    }
}

/// Writes the rows of the new incarnation and this node's view of it, durably.
fn write_rows(
    stored: &StoredState,
    machine: &DirectoryMachine,
    recovered: RecoveredDirectory,
    time: u64,
) -> Result<(), Error> {
    let view = recovered.directory.view();
    let (changes, version): (Vec<_>, _) = (view.as_changes().collect(), view.version());
    stored
        .directory_view_rows
        .write(true, &changes, version)
        .map_err(interrupted)?;
    let begins = DirectoryAt {
        directory: recovered.directory,
        time,
    };
    // The checkpoint of the one makes the other durable too: they share the engine.
    machine.begin_incarnation(begins).map_err(interrupted)
}

fn interrupted(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Interrupted(error.into())
}

/// Returns the names of nodes.
fn names(config: &ValidatedConfig, nodes: &[NodeId]) -> Vec<String> {
    let name = |node: &NodeId| {
        let known = config.members.iter().find(|member| member.id == *node);
        known.map_or_else(|| node.to_string(), |known| known.name.clone())
    };
    nodes.iter().map(name).collect()
}

/// Which other nodes answer.
#[derive(Default)]
struct Survey {
    /// Names of voters of the directory that answer.
    voters: Vec<String>,
    seen: Vec<SeenVersion>,
    silent: Vec<String>,
}

impl Survey {
    /// Asks all other nodes.
    async fn of(config: &ValidatedConfig, connect: &Connect, voters: &[NodeId]) -> Self {
        let others = config.members.iter().filter(|member| member.id != config.node.id);
        let asked = others.map(async |member| {
            let is_voter = voters.contains(&member.id) && answers(connect, member).await;
            (member, is_voter, seen_version(connect, member).await)
        });
        let mut survey = Self::default();
        for (member, is_voter, seen) in join_all(asked).await {
            if is_voter {
                survey.voters.push(member.name.clone());
            }
            match seen {
                Some(version) => survey.seen.push(SeenVersion {
                    node: member.name.clone(),
                    version,
                }),
                None if is_voter => {}
                None => survey.silent.push(member.name.clone()),
            }
        }
        survey
    }
}

/// Tells whether a voter answers, whatever it says: one without a majority has no version to tell.
async fn answers(connect: &Connect, member: &NodeConfig) -> bool {
    let Ok(channel) = channel(connect, &member.peer, Keepalive::PEER) else {
        return false;
    };
    let mut client = DirectoryServiceClient::new(channel);
    match timeout(ANSWER_MAX, client.read_version(ReadVersionRequest {})).await {
        Ok(Ok(_)) => true,
        // A status with a source was made here: nothing was heard of the voter.
        Ok(Err(status)) => std::error::Error::source(&status).is_none(),
        Err(_) => false,
    }
}

/// Returns the directory version that a node has seen, if it answers.
async fn seen_version(connect: &Connect, member: &NodeConfig) -> Option<DirectoryVersion> {
    let channel = channel(connect, &member.client, Keepalive::PEER).ok()?;
    let mut client = NodeServiceClient::new(channel);
    let number = member.id.get();
    let answer = await_response(client.get_node(peer_request(GetNodeRequest { number }))).await?;
    let version = answer.node?.status?.view_version?;
    Some(DirectoryVersion {
        incarnation: Incarnation(version.incarnation),
        index: version.index,
    })
}
