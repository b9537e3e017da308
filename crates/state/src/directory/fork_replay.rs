//! Record that an operator has changes of a fork written again. The log of the tenant's home writes them afterwards.

use stead_types::{GroupId, TenantName};

use super::{Directory, DirectoryOutcome, DirectoryResult, Rejection, text};
use crate::codec::{Malformed, Reader, Writer};

/// Fork whose changes are to be written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkReplay {
    /// Name of the tenant.
    pub tenant: TenantName,
    /// Group whose log has the fork.
    pub group: GroupId,
    /// Number of the fork.
    pub fork: u32,
    /// Which of its changes, in words.
    pub selection: String,
}

impl ForkReplay {
    pub(super) fn encode(&self, w: &mut Writer) {
        text::write(w, self.tenant.as_str());
        w.varint(u64::from(self.group.get())).varint(u64::from(self.fork));
        text::write(w, &self.selection);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: text::parse(r)?,
            group: text::group(r)?,
            fork: r.varint_u32()?,
            selection: text::read(r)?,
        })
    }

    /// Returns the action of the audit record, whose subject is the tenant.
    pub(super) fn action(&self) -> String {
        let (fork, group) = (self.fork, self.group.get());
        format!("replay fork {fork} in group {group}: {}", self.selection)
    }
}

impl Directory {
    /// Checks what an audit record of a replay names; nothing else changes.
    pub(super) fn record_fork_replay(&self, replay: &ForkReplay) -> DirectoryResult {
        self.view.settings().check_region_loss()?;
        let tenant = self.named(&replay.tenant, None)?;
        match self.view.group(replay.group) {
            Some(group) if group.number != GroupId::DIRECTORY => Ok(DirectoryOutcome::Tenant(tenant.number)),
            Some(_) | None => Err(Rejection::GroupUnknown(replay.group)),
        }
    }
}

#[cfg(test)]
mod tests {
    use stead_types::NodeId;

    use crate::directory::{
        directory_test::{World, by, create, hex, new},
        *,
    };

    fn replay(tenant: &str, group: u32) -> Command {
        let replay = ForkReplay {
            tenant: tenant.parse().unwrap(),
            group: GroupId::new(group),
            fork: 7,
            selection: "clean".to_owned(),
        };
        Command::RecordForkReplay(by(), replay)
    }

    #[test]
    fn replay_of_fork_is_in_audit_from_feature_level_4_on() {
        let mut world = World::begun();
        world.apply(create(new("acme", "eu-west"))).unwrap();
        let raise = |level| Command::RaiseFeatureLevel(by(), level, (1..=5).map(NodeId::new).collect());
        world.apply(raise(3)).unwrap();
        let early = world.apply(replay("acme", 3)).unwrap_err();
        assert!(matches!(early, Rejection::FeatureLevel { needed: 4, .. }), "{early}");
        world.apply(raise(4)).unwrap();
        world.apply(replay("acme", 3)).unwrap();
        let unknown = world.apply(replay("other", 3)).unwrap_err();
        assert!(matches!(unknown, Rejection::TenantUnknown(_)), "{unknown}");
        let unknown = world.apply(replay("acme", 0)).unwrap_err();
        assert_eq!(unknown, Rejection::GroupUnknown(GroupId::new(0)));
        let records = world.directory.audit().newest_first();
        let of_acme = records.filter(|record| record.subject == "acme");
        let actions: Vec<&str> = of_acme.map(|record| &record.action[..]).collect();
        assert_eq!(actions, ["replay fork 7 in group 3: clean", "create tenant"]);
    }

    #[test]
    fn encoding_of_fork_replay_stays() {
        let bytes = replay("acme", 3).encode();
        let by_len = 1 + by().who.len() + 1 + by().reason.len();
        assert_eq!(bytes[0], 38);
        assert_eq!(hex(&bytes[1 + by_len..]), "0461636d65030705636c65616e");
    }
}
