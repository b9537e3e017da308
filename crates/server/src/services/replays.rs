//! `stead.internal.v1.ReplayService`: writes changes of forks again, at the leader of the tenant's home.
//!
//! The log decides, with the entry that writes; a dry run decides the same of what is applied now. What is answered as
//! written passed the serving check, as any other write.

use std::{sync::Arc, time::Duration};

use stead_api::{
    convert,
    proto::{
        admin::v1::{self as admin, ReplayOutcome as Outcome},
        internal::v1::{ReplayChangesRequest, ReplayChangesResponse, replay_service_server},
    },
    status,
};
use stead_raft::{Proposal, ProposeError, split_into_entries};
use stead_state::{
    rows::Unreadable,
    shard::{
        apply_result::{ApplyResult, GuardFailure, ReplayOutcome, ReplayResult, ValueError, WriteFailure},
        command::{Command, Replay},
        read::ForkClass,
        replay::{REPLAYS_MAX, ReplayDecision, TouchedKey, decide},
    },
};
use stead_types::{Error, ErrorKind, GroupId, Revision, TenantNumber};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::{
    host::{Host, HostedGroup},
    router::{ReadNotServed, ServingCheck},
};

/// Longest time for a call of this service.
pub(crate) const CALL_MAX: Duration = Duration::from_secs(6);
/// Longest time for the changes of a call in the group's log.
const WRITE_MAX: Duration = Duration::from_secs(4);
/// Most changes of one call.
const CHANGES_MAX: usize = 1_000;

/// The service.
#[derive(Clone)]
pub(crate) struct ReplayService(Arc<Host>);

impl ReplayService {
    /// Returns the service.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self(host)
    }
}

/// Writes changes again, or tells what would become of them.
///
/// # Errors
///
/// The commands are not replays of this tenant, the home may not serve it, or it is not known what was written.
pub(crate) async fn replay(host: &Host, request: ReplayChangesRequest) -> Result<ReplayChangesResponse, Error> {
    let tenant = TenantNumber::new(request.tenant);
    host.directory_view.read(|view| view.settings().check_region_loss())?;
    let replays = read_commands(&request, tenant)?;
    let hosted = host.groups.get(&GroupId::new(request.group));
    let hosted = hosted.filter(|hosted| hosted.raft.is_leader() && hosted.raft.is_connected());
    let Some(hosted) = hosted.filter(|hosted| hosted.owns(tenant)) else {
        return Ok(ReplayChangesResponse::default());
    };
    let serving = ServingCheck::new(host);
    match serving.check(hosted, tenant) {
        Ok(_) => {}
        Err(ReadNotServed::NotOwner) => return Ok(ReplayChangesResponse::default()),
        Err(ReadNotServed::Refused(error)) => return Err(error),
    }
    let changes = if request.dry_run {
        forecast(hosted, tenant, &replays)?
    } else {
        write(hosted, &serving, tenant, replays).await?
    };
    Ok(ReplayChangesResponse {
        is_home: changes.is_some(),
        changes: changes.unwrap_or_default(),
    })
}

fn read_commands(request: &ReplayChangesRequest, tenant: TenantNumber) -> Result<Vec<Replay>, Error> {
    let count = request.commands.len();
    if count > CHANGES_MAX {
        let message = format!("commands: {count}; at most {CHANGES_MAX} at a time");
        return Err(Error::invalid("commands", message));
    }
    let read = |bytes: &bytes::Bytes| match Command::decode(*bytes.first()?, bytes.slice(1..)) {
        Ok(Command::Replay(replay)) if replay.tenant == tenant => Some(replay),
        Ok(_) | Err(_) => None,
    };
    let replays: Option<Vec<Replay>> = request.commands.iter().map(read).collect();
    replays.ok_or_else(|| Error::invalid("commands", "commands: not replays of this tenant"))
}

/// Tells what would become of changes; `None` where the group has no copy to read.
fn forecast(
    hosted: &HostedGroup,
    tenant: TenantNumber,
    replays: &[Replay],
) -> Result<Option<Vec<admin::ReplayedChange>>, Error> {
    let logged = hosted.raft.logged_time();
    let decisions = hosted.read_if_readable(tenant, |reading| {
        let reading = reading?;
        let now = reading.state().time_at(logged);
        let decided: Result<Vec<ReplayDecision>, Unreadable> =
            replays.iter().map(|replay| decide(&reading, replay, now)).collect();
        Some(decided)
    })?;
    let Some(decisions) = decisions else { return Ok(None) };
    let decisions = decisions.map_err(|_| Error::new(ErrorKind::Internal, "cannot read this node's storage"))?;
    let change = |(decision, replay): (ReplayDecision, &Replay)| {
        let outcome = match decision.found {
            Some(_) => Outcome::Found,
            None if replay.allowed.has(decision.class) => Outcome::Written,
            None => Outcome::Left,
        };
        admin::ReplayedChange {
            class: class(decision.class).into(),
            outcome: outcome.into(),
            live_revision: decision.found.map(convert::id::from_revision),
            touched: touched(decision.touched(replay)),
            ..admin::ReplayedChange::default()
        }
    };
    Ok(Some(decisions.into_iter().zip(replays).map(change).collect()))
}

/// Writes changes by the group's log, in their order; `None` where the group does not own the tenant any more.
async fn write(
    hosted: &HostedGroup,
    serving: &ServingCheck,
    tenant: TenantNumber,
    replays: Vec<Replay>,
) -> Result<Option<Vec<admin::ReplayedChange>>, Error> {
    let deadline = Instant::now() + WRITE_MAX;
    let proposals = replays.into_iter().map(|replay| {
        let proposal = Proposal {
            command: replay.encode(),
            work: 0,
            deadline,
        };
        ((), proposal)
    });
    let mut results = Vec::new();
    for (_, proposals) in split_into_entries(proposals) {
        for result in hosted.propose(tenant, proposals).await.map_err(not_known)? {
            results.push(result.ok_or_else(late)?);
        }
    }
    // An owner that is not fenced and has a lease confirms all of them.
    if serving.check(hosted, tenant).is_err() {
        return Err(unconfirmed());
    }
    let mut changes = Vec::with_capacity(results.len());
    for result in results {
        if result == ApplyResult::GuardFailed(GuardFailure::SequencesExhausted) {
            let limit = "tenant.revisions".to_owned();
            let message = "the tenant has used up its revisions: an operator can move it to a new epoch";
            return Err(Error::new(ErrorKind::QuotaExceeded { limit }, message));
        }
        let ApplyResult::Replay(result) = result else {
            return Ok(None);
        };
        changes.push(message(result));
    }
    Ok(Some(changes))
}

fn message(result: ReplayResult) -> admin::ReplayedChange {
    let (outcome, revision, failure) = match result.outcome {
        ReplayOutcome::Written(revision) => (Outcome::Written, Some(revision), String::new()),
        ReplayOutcome::Found(revision) => (Outcome::Found, Some(revision), String::new()),
        ReplayOutcome::Left => (Outcome::Left, None, String::new()),
        ReplayOutcome::Nothing => (Outcome::Nothing, None, String::new()),
        ReplayOutcome::Failed(failure) => (Outcome::Failed, None, failure_text(failure)),
        ReplayOutcome::NoRoom => {
            let message =
                format!("the tenant remembers {REPLAYS_MAX} replays, which is the most: write what is left by hand");
            (Outcome::Failed, None, message)
        }
    };
    admin::ReplayedChange {
        class: class(result.class).into(),
        outcome: outcome.into(),
        live_revision: revision.map(convert::id::from_revision),
        touched: touched(result.touched),
        failure,
        ..admin::ReplayedChange::default()
    }
}

/// Converts the class of a change.
pub(crate) fn class(class: ForkClass) -> admin::ForkClass {
    match class {
        ForkClass::Replayed => admin::ForkClass::Replayed,
        ForkClass::Absorbed => admin::ForkClass::Absorbed,
        ForkClass::Expired => admin::ForkClass::Expired,
        ForkClass::Clean => admin::ForkClass::Clean,
        ForkClass::Commutative => admin::ForkClass::Commutative,
        ForkClass::Uncertain => admin::ForkClass::Uncertain,
        ForkClass::Conflict => admin::ForkClass::Conflict,
    }
}

fn touched(keys: Vec<TouchedKey>) -> Vec<admin::TouchedKey> {
    let message = |key: TouchedKey| admin::TouchedKey {
        key: key.key,
        live_revision: Some(key.live)
            .filter(|live| *live != Revision::ZERO)
            .map(convert::id::from_revision),
    };
    keys.into_iter().map(message).collect()
}

fn failure_text(failure: WriteFailure) -> String {
    match failure {
        WriteFailure::BoundReached(number) => {
            format!("the increment would pass its bound: the counter is at {number} now")
        }
        WriteFailure::Value(ValueError::NotANumber) => "the key holds no number now".to_owned(),
        WriteFailure::Value(ValueError::Overflow { number }) => {
            format!("the sum would not fit into 64 bits: the counter is at {number} now")
        }
        WriteFailure::Value(ValueError::TooLong { len }) => {
            format!("the value would become longer than the append allowed: it has {len} bytes now")
        }
        WriteFailure::Value(ValueError::ChangeTooLong { len }) => {
            format!("the change would have more than {len} bytes with what is there now, which is too long")
        }
    }
}

fn not_known(error: ProposeError) -> Error {
    let kind = match error {
        ProposeError::NotLeader { .. } => ErrorKind::NoLeader,
        ProposeError::Overloaded | ProposeError::Stopped => ErrorKind::Unavailable,
        ProposeError::TimedOut | ProposeError::LeaderChanged | ProposeError::Unknown => {
            ErrorKind::OutcomeUnknown { key: None }
        }
    };
    let message = format!("{error}: replay again, what was written is found and not written twice");
    Error::new(kind, message)
}

fn late() -> Error {
    let message = "the home was busy, and a part was not written in time: replay again, what was written is found";
    Error::new(ErrorKind::OutcomeUnknown { key: None }, message)
}

fn unconfirmed() -> Error {
    let message =
        "the home may no longer serve the tenant: replay again, what was written is found and not written twice";
    Error::new(ErrorKind::OutcomeUnknown { key: None }, message)
}

#[tonic::async_trait]
impl replay_service_server::ReplayService for ReplayService {
    async fn replay_changes(
        &self,
        request: Request<ReplayChangesRequest>,
    ) -> Result<Response<ReplayChangesResponse>, Status> {
        let replayed = replay(&self.0, request.into_inner()).await;
        replayed.map(Response::new).map_err(|error| status::to_status(&error))
    }
}
