//! Replay of forks: a page of changes is read at the leader of the group that has them, and written at the leader of the
//! tenant's home, whose log remembers them for ever. A page that is asked for again finds what was written.
//!
//! ```text
//!   leader of the fork's group                      leader of the home
//!   page -> selected changes -> ReplayChanges  -->  decide and write, one change of the tenant each
//!                                              <--  class, outcome, revision
//! ```

use stead_api::{
    convert,
    proto::{
        admin::v1::{self as admin, ReplayForkRequest, ReplayForkResponse, fork_service_client::ForkServiceClient},
        internal::v1::{ReplayChangesRequest, replay_service_client::ReplayServiceClient},
    },
    status,
};
use stead_state::{
    directory::{AuditContext, Command, ForkReplay, Tenant},
    shard::{
        command::{ReplayClasses, WindowLimits},
        read,
    },
};
use stead_types::{Error, ErrorKind, GroupId, Sequence};
use tonic::{Request, Response};

use super::{
    PAGE_DEFAULT, PAGE_MAX, by,
    fork_reads::{check_fork, no_fork, read_here, to_leader_for},
    group_leader::{self, Leader},
    region_name,
};
use crate::{
    admin_peers::{is_peer_request, peer_request},
    host::{Host, HostedGroup},
    response::MESSAGE_DECODE_MAX,
    services::{call_metadata::access, replays},
};

/// Bytes of the changes of one page, but for a single change that is longer.
const PAGE_LEN: usize = 1 << 20;
/// Longest key or prefix that the audit log has of a selection, in bytes.
const SELECTION_KEY_MAX: usize = 100;

/// Which changes of a fork are to be written again.
#[derive(Debug)]
struct Selection {
    classes: ReplayClasses,
    key: bytes::Bytes,
    prefix: bytes::Bytes,
}

impl Selection {
    fn of(request: &ReplayForkRequest) -> Result<Self, Error> {
        let mut classes = ReplayClasses::default();
        for class in request.classes() {
            match class {
                admin::ForkClass::Clean => classes.clean = true,
                admin::ForkClass::Commutative => classes.commutative = true,
                admin::ForkClass::Uncertain => classes.uncertain = true,
                admin::ForkClass::Conflict => classes.conflict = true,
                admin::ForkClass::Expired => classes.expired = true,
                admin::ForkClass::Absorbed | admin::ForkClass::Replayed | admin::ForkClass::Unspecified => {
                    let message = "classes: changes that are absorbed or replayed are there already: name any of clean, \
                                   commutative, uncertain, conflict and expired";
                    return Err(Error::invalid("classes", message));
                }
            }
        }
        if request.classes.is_empty() {
            (classes.clean, classes.commutative) = (true, true);
        }
        if !request.key.is_empty() && !request.prefix.is_empty() {
            return Err(Error::invalid("prefix", "prefix: name a key or a prefix, not both"));
        }
        Ok(Self {
            classes,
            key: request.key.clone(),
            prefix: request.prefix.clone(),
        })
    }

    fn has(&self, replay: &read::ForkReplay) -> bool {
        let mut keys = replay.command.effects.iter().map(|effect| &effect.key);
        keys.any(|key| (self.key.is_empty() || *key == self.key) && key.starts_with(&self.prefix))
    }

    /// Returns the selection in words, for the audit log.
    fn words(&self) -> String {
        let classes = [
            (self.classes.clean, "clean"),
            (self.classes.commutative, "commutative"),
            (self.classes.uncertain, "uncertain"),
            (self.classes.conflict, "conflict"),
            (self.classes.expired, "expired"),
        ];
        let named: Vec<_> = classes
            .iter()
            .filter(|(is_in, _)| *is_in)
            .map(|(_, name)| *name)
            .collect();
        let of = |name: &str, key: &[u8]| match key {
            [] => String::new(),
            key => {
                let shown = &key[..key.len().min(SELECTION_KEY_MAX)];
                format!(", {name} {}", shown.escape_ascii())
            }
        };
        named.join(" ") + &of("key", &self.key) + &of("prefix", &self.prefix)
    }
}

/// Writes a page of a fork again, or tells what would become of it.
pub(super) async fn replay(host: &Host, request: Request<ReplayForkRequest>) -> Result<ReplayForkResponse, Error> {
    let may_ask_peers = !is_peer_request(&request);
    let by = by(&request, &request.get_ref().reason);
    let access = access(&request)?;
    let request = request.into_inner();
    convert::directory::reason(&request.reason)?;
    let selection = Selection::of(&request)?;
    let size = convert::page::size(request.page_size, PAGE_DEFAULT, PAGE_MAX)? as usize;
    let after = position(&request)?;
    host.directory_view.read(|view| view.settings().check_region_loss())?;
    let tenant = host.resolve(&convert::id::tenant("tenant", &request.tenant)?).await?;
    check_settled(&tenant)?;
    let hosted = match group_leader::find(host, GroupId::new(request.group), may_ask_peers).await? {
        Leader::Here(hosted) => hosted,
        Leader::At(_, channel) => {
            let mut client = ForkServiceClient::new(channel);
            let answer = client.replay_fork(to_leader_for(request, &access, &by)).await;
            return answer
                .map(Response::into_inner)
                .map_err(|status| status::from_status(&status));
        }
    };
    let page = read_page(hosted, &tenant, request.fork, after, size)?;
    if !request.dry_run && after.is_none() {
        record(host, &tenant, &request, &selection, by).await?;
    }
    let selected: Vec<_> = page
        .replays
        .into_iter()
        .filter(|replay| selection.has(replay))
        .collect();
    let changes = write(host, &tenant, &selection, &selected, request.dry_run).await?;
    let (home_group, home_region) = host
        .directory_view
        .read(|view| (tenant.home.get(), region_name(view, tenant.home)));
    Ok(ReplayForkResponse {
        changes,
        next_page_token: page.next.map_or_else(String::new, |next| token(&request, next)),
        home_group,
        home_region,
    })
}

/// Refuses a replay while the tenant is on its way to another home: the operator would not see where it was written.
fn check_settled(tenant: &Tenant) -> Result<(), Error> {
    let name = &tenant.name;
    let what = if tenant.promoting.is_some() {
        format!("tenant {name} is being promoted")
    } else if tenant.moving.is_some() {
        format!("tenant {name} is being moved to another home")
    } else {
        return Ok(());
    };
    let message = format!("{what}: replay when that is over, see `stead operation list --in-flight`");
    Err(Error::new(ErrorKind::TenantMoving, message))
}

fn read_page(
    hosted: &HostedGroup,
    tenant: &Tenant,
    fork: u32,
    after: Option<Sequence>,
    size: usize,
) -> Result<read::ReplayPage, Error> {
    check_fork(hosted, tenant, fork)?;
    let page = read_here(hosted, |view| {
        let reader = view.fork(tenant.number, fork);
        reader.map(|reader| reader.replays(after, size, PAGE_LEN)).transpose()
    })?;
    page.ok_or_else(|| no_fork(tenant, hosted, fork))
}

/// Has the replay in the audit log before anything is written.
async fn record(
    host: &Host,
    tenant: &Tenant,
    request: &ReplayForkRequest,
    selection: &Selection,
    by: AuditContext,
) -> Result<(), Error> {
    let replay = ForkReplay {
        tenant: tenant.name.clone(),
        group: GroupId::new(request.group),
        fork: request.fork,
        selection: selection.words(),
    };
    let command = Command::RecordForkReplay(by, replay);
    host.directory.propose(&command).await?;
    Ok(())
}

/// Writes changes at the tenant's home.
async fn write(
    host: &Host,
    tenant: &Tenant,
    selection: &Selection,
    selected: &[read::ForkReplay],
    dry_run: bool,
) -> Result<Vec<admin::ReplayedChange>, Error> {
    if selected.is_empty() {
        return Ok(Vec::new());
    }
    let limits = WindowLimits::of(|limit| tenant.limit(limit));
    let commands = selected.iter().map(|replay| {
        let mut command = replay.command.clone();
        (command.allowed, command.limits) = (selection.classes, limits);
        command.encode()
    });
    let request = ReplayChangesRequest {
        group: tenant.home.get(),
        tenant: tenant.number.get(),
        dry_run,
        commands: commands.collect(),
    };
    let answer = match group_leader::find(host, tenant.home, true).await? {
        Leader::Here(_) => replays::replay(host, request).await?,
        Leader::At(leader, _) => {
            let address = host
                .directory_view
                .read(|view| Some(view.node(leader)?.addresses.peer.clone()));
            let channel = address.and_then(|address| host.admin_peers.channel(&address));
            let channel = channel.ok_or_else(|| moved(tenant))?;
            let mut client = ReplayServiceClient::new(channel)
                .max_decoding_message_size(MESSAGE_DECODE_MAX)
                .max_encoding_message_size(MESSAGE_DECODE_MAX);
            let mut request = peer_request(request);
            request.set_timeout(replays::CALL_MAX);
            let answer = client.replay_changes(request).await;
            answer.map_err(|status| status::from_status(&status))?.into_inner()
        }
    };
    if !answer.is_home || answer.changes.len() != selected.len() {
        return Err(moved(tenant));
    }
    let named = answer
        .changes
        .into_iter()
        .zip(selected)
        .map(|(change, replay)| admin::ReplayedChange {
            revision: Some(convert::id::from_revision(replay.revision)),
            keys: replay.command.effects.iter().map(|effect| effect.key.clone()).collect(),
            ..change
        });
    Ok(named.collect())
}

fn moved(tenant: &Tenant) -> Error {
    let message = format!(
        "the home of tenant {} has changed meanwhile: ask again, what was written is found and not written twice",
        tenant.name
    );
    Error::new(ErrorKind::TenantMoving, message)
}

fn arguments(request: &ReplayForkRequest) -> Vec<u8> {
    format!("replay\0{}\0{}\0{}", request.tenant, request.group, request.fork).into_bytes()
}

fn token(request: &ReplayForkRequest, next: Sequence) -> String {
    convert::page::token(&arguments(request), &next.get().to_be_bytes())
}

/// Returns the sequence that a page begins after; `None` on the first page.
fn position(request: &ReplayForkRequest) -> Result<Option<Sequence>, Error> {
    let Some(bytes) = convert::page::position(&arguments(request), &request.page_token)? else {
        return Ok(None);
    };
    let sequence = <[u8; 8]>::try_from(&bytes[..]).ok().map(u64::from_be_bytes);
    let sequence = sequence.and_then(Sequence::new);
    let invalid = || Error::invalid("page_token", "page_token: not a token of this store");
    sequence.map(Some).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant_fixture;

    fn request(classes: &[admin::ForkClass]) -> ReplayForkRequest {
        ReplayForkRequest {
            tenant: "acme".into(),
            group: 3,
            fork: 5,
            classes: classes.iter().map(|class| i32::from(*class)).collect(),
            ..ReplayForkRequest::default()
        }
    }

    #[test]
    fn clean_and_commutative_changes_are_selected_unless_others_are_named() {
        let of = |classes: &[admin::ForkClass]| Selection::of(&request(classes)).map(|selection| selection.words());
        assert_eq!(of(&[]).unwrap(), "clean commutative");
        assert_eq!(of(&[admin::ForkClass::Conflict]).unwrap(), "conflict");
        for there in [
            admin::ForkClass::Absorbed,
            admin::ForkClass::Replayed,
            admin::ForkClass::Unspecified,
        ] {
            let refused = of(&[admin::ForkClass::Clean, there]).unwrap_err();
            assert_eq!(
                refused.kind,
                ErrorKind::Invalid {
                    field: "classes".into()
                }
            );
        }
        let both = ReplayForkRequest {
            key: "a".into(),
            prefix: "b".into(),
            ..request(&[])
        };
        assert!(Selection::of(&both).is_err());
        let key = ReplayForkRequest {
            key: "a\n".into(),
            ..request(&[])
        };
        assert_eq!(Selection::of(&key).unwrap().words(), "clean commutative, key a\\n");
    }

    #[test]
    fn token_of_replay_is_read_by_same_fork_only() {
        let sequence = Sequence::new(1 << 33).unwrap();
        let next = ReplayForkRequest {
            page_token: token(&request(&[]), sequence),
            ..request(&[])
        };
        assert_eq!(position(&next), Ok(Some(sequence)));
        assert_eq!(position(&request(&[])), Ok(None));
        assert!(position(&ReplayForkRequest { fork: 6, ..next }).is_err());
    }

    #[test]
    fn replay_waits_for_end_of_promotion() {
        let tenant = tenant_fixture::tenant(5, &[]);
        assert_eq!(check_settled(&tenant), Ok(()));
    }
}
