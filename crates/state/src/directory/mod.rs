//! The directory: which group is home to which tenant, in which epoch, and what holds for it.
//!
//! The directory only decides. It is the machine of one Raft group; every node follows its [`Change`]s into a [`View`]
//! of its own. Copying, serving and erasing belong to the groups, whose reconcilers act on their views and report.
//!
//! ```text
//! Command -> Directory::apply -> Answer
//!                             -> Changes, tagged with a DirectoryVersion -> View on every node
//!                             -> rows
//! ```
//!
//! # Invariants
//!
//! 1. Numbers of tenants, nodes and groups are never used twice; nor are epochs of a tenant.
//! 2. A tenant's home is a member that stays, unless the tenant is being erased.
//! 3. A member that stays is in a jurisdiction that the tenant's residency admits.
//! 4. A group is removed from a tenant's members only by its own report that it has erased the tenant.
//! 5. A rejected command changes nothing.
//!
//! Deliberately absent: leases, moves and promotions, and with them the phase in which a leaving follower is still
//! consulted.

mod answer;
mod audit;
mod bootstrap;
mod change;
mod command;
mod limits;
mod nodes;
mod place;
mod placement;
mod tenant;
mod tenants;
mod text;
mod view;

#[cfg(test)]
mod directory_test;

use stead_types::{DirectoryVersion, Incarnation, TenantNumber};

pub use answer::{Answer, Outcome, Rejection, decode as decode_answer, encode as encode_answer};
pub use audit::{Audit, RECORDS_MAX as AUDIT_RECORDS_MAX, Record};
pub use bootstrap::{Initial, InitialNode};
pub use change::Change;
pub use command::{By, Command, NewNode, NewTenant, REPORTS_MAX, Report, SETTLE_MAX, TenantUpdate};
pub use limits::LimitsUpdate;
pub use place::{Addresses, Group, Node, Region};
pub use tenant::{Followers, Member, State, Tenant};
pub use view::{Load, View};

use crate::codec::{Malformed, Reader, Writer};

/// Most tenants of a cluster: each takes memory on every node.
pub const TENANTS_MAX: usize = 1_000_000;

/// The directory's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    view: View,
    incarnation: Incarnation,
    initial: Option<Initial>,
    next_tenant: u64,
    next_node: u64,
    next_group: u32,
    settle_from: Option<TenantNumber>,
    audit: Audit,
}

/// What applying a command gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// For the proposer.
    pub answer: Answer,
    /// For every view, at [`View::version`].
    pub changes: Vec<Change>,
    /// For the audit, if somebody asked for a change and got it.
    pub record: Option<Record>,
}

/// One command's turn.
struct Turn {
    version: DirectoryVersion,
    time: u64,
    changes: Vec<Change>,
}

impl Turn {
    /// Applies a change to the directory's own view, and keeps it for all others.
    fn push(&mut self, view: &mut View, change: Change) {
        view.apply(change.clone());
        self.changes.push(change);
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            view: View::default(),
            incarnation: Incarnation::FIRST,
            initial: None,
            next_tenant: 1,
            next_node: 1,
            next_group: 1,
            settle_from: None,
            audit: Audit::default(),
        }
    }
}

impl Directory {
    /// Returns what every node's view is to become.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Returns who changed what.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Returns the name of the cluster, once it has begun.
    pub fn cluster(&self) -> Option<&str> {
        self.initial.as_ref().map(|initial| initial.cluster.as_str())
    }

    /// Tells whether the leader should propose [`Command::Settle`].
    pub fn unsettled(&self) -> bool {
        self.settle_from.is_some()
    }

    /// Notes that the entry with this index is being applied. Every entry counts, also one without commands.
    pub fn reach(&mut self, index: u64) {
        self.view.reach(DirectoryVersion {
            incarnation: self.incarnation,
            index,
        });
    }

    /// Applies a committed command, at the logged time `time` of the entry that [`Directory::reach`] was told of.
    pub fn apply(&mut self, time: u64, command: Command) -> Applied {
        let mut turn = Turn {
            version: self.view.version(),
            time,
            changes: Vec::new(),
        };
        let asked = asked(&command);
        let answer = self.dispatch(&mut turn, command);
        debug_assert!(
            answer.is_ok() || turn.changes.is_empty(),
            "a rejected command changes nothing"
        );
        let record = asked.filter(|_| answer.is_ok() && !turn.changes.is_empty());
        let record = record.map(|(by, action, subject)| Record {
            number: self.audit.next_number(),
            version: turn.version,
            time,
            who: by.who,
            reason: by.reason,
            action: action.to_owned(),
            subject,
        });
        if let Some(record) = &record {
            self.audit.push(record.clone());
        }
        Applied {
            answer,
            changes: turn.changes,
            record,
        }
    }

    /// Says what a command about a tenant or a region would make of a view, without doing it: what it would be is in the
    /// view that is returned. Numbers of what is made, versions and times are not those that the command itself would get.
    pub fn rehearse(view: View, command: Command) -> Result<(Outcome, View), Rejection> {
        let last = view.tenants_from(TenantNumber::new(0)).last();
        let mut directory = Self {
            next_tenant: last.map_or(1, |tenant| tenant.number.get() + 1),
            view,
            ..Self::default()
        };
        let mut turn = Turn {
            version: directory.view.version(),
            time: 0,
            changes: Vec::new(),
        };
        let outcome = directory.carry_out(&mut turn, command)?;
        Ok((outcome, directory.view))
    }

    fn dispatch(&mut self, turn: &mut Turn, command: Command) -> Answer {
        if self.initial.is_none() && !matches!(command, Command::Bootstrap(_)) {
            return Err(Rejection::NotBootstrapped);
        }
        self.carry_out(turn, command)
    }

    fn carry_out(&mut self, turn: &mut Turn, command: Command) -> Answer {
        match command {
            Command::Bootstrap(initial) => self.bootstrap(turn, initial),
            Command::CreateRegion(_, region) => self.create_region(turn, region),
            Command::Join(_, node) => self.join(turn, node),
            Command::UpdateAddresses(node, addresses) => self.update_addresses(turn, node, addresses),
            Command::CreateTenant(_, tenant) => self.create_tenant(turn, tenant),
            Command::UpdateTenant(_, update) => self.update_tenant(turn, update),
            Command::EraseTenant(_, name, etag) => self.erase_tenant(turn, &name, etag),
            Command::Report(group, incarnation, reports) => self.report(turn, group, incarnation, &reports),
            Command::Settle => self.settle(turn),
        }
    }
}

/// Returns what the audit says about a command that people ask for: who, what, to what.
fn asked(command: &Command) -> Option<(By, &'static str, String)> {
    match command {
        Command::CreateRegion(by, region) => Some((by.clone(), "create region", region.name.to_string())),
        Command::Join(by, node) => Some((by.clone(), "join node", node.name.clone())),
        Command::CreateTenant(by, tenant) => Some((by.clone(), "create tenant", tenant.name.to_string())),
        Command::UpdateTenant(by, update) => Some((by.clone(), "update tenant", update.name.to_string())),
        Command::EraseTenant(by, name, _) => Some((by.clone(), "erase tenant", name.to_string())),
        Command::Bootstrap(_) | Command::UpdateAddresses(..) | Command::Report(..) | Command::Settle => None,
    }
}

/// What a row keeps besides things and audit.
impl Directory {
    /// Writes the counters, the version and the first list of nodes.
    pub(crate) fn encode_meta(&self) -> bytes::Bytes {
        let mut w = Writer::default();
        command::encode_version(&mut w, self.view.version());
        w.varint(u64::from(self.incarnation.0));
        w.option(self.initial.as_ref(), |w, initial| initial.encode(w));
        w.varint(self.next_tenant)
            .varint(self.next_node)
            .varint(u64::from(self.next_group));
        w.option(self.settle_from, |w, from| {
            w.varint(from.get());
        });
        w.finish()
    }

    /// Reads what [`Directory::encode_meta`] wrote.
    pub(crate) fn decode_meta(&mut self, bytes: bytes::Bytes) -> Result<(), Malformed> {
        let mut r = Reader::new(bytes, "directory counters");
        self.view.reach(command::decode_version(&mut r)?);
        self.incarnation = Incarnation(r.varint_u32()?);
        self.initial = r.option(Initial::decode)?;
        self.next_tenant = r.varint()?;
        self.next_node = r.varint()?;
        self.next_group = r.varint_u32()?;
        self.settle_from = r.option(|r| r.varint().map(TenantNumber::new))?;
        r.end()
    }

    /// Takes in a thing or an audit record that a row held.
    pub(crate) fn restore(&mut self, thing: Change) {
        self.view.apply(thing);
    }

    /// Takes in an audit record that a row held; rows come in the order of numbers.
    pub(crate) fn restore_record(&mut self, record: Record) {
        self.audit.push(record);
    }
}
