//! Record that an operator has a fork discarded. The fork is in the log of a group, which discards it afterwards.

use stead_types::{GroupId, TenantName};

use super::{Directory, DirectoryOutcome, DirectoryResult, Rejection, text};
use crate::codec::{Malformed, Reader, Writer};

/// Fork that is to be discarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkDiscard {
    /// Name of the tenant.
    pub tenant: TenantName,
    /// Group whose log has the fork.
    pub group: GroupId,
    /// Number of the fork.
    pub fork: u32,
}

impl ForkDiscard {
    pub(super) fn encode(&self, w: &mut Writer) {
        text::write(w, self.tenant.as_str());
        w.varint(u64::from(self.group.get())).varint(u64::from(self.fork));
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: text::parse(r)?,
            group: text::group(r)?,
            fork: r.varint_u32()?,
        })
    }

    /// Returns the action of the audit record, whose subject is the tenant.
    pub(super) fn action(&self) -> String {
        format!("discard fork {} in group {}", self.fork, self.group.get())
    }
}

impl Directory {
    /// Checks what an audit record of a discard names; nothing else changes.
    pub(super) fn record_fork_discard(&self, discard: &ForkDiscard) -> DirectoryResult {
        self.view.settings().check_forks()?;
        let tenant = self.named(&discard.tenant, None)?;
        match self.view.group(discard.group) {
            Some(group) if group.number != GroupId::DIRECTORY => Ok(DirectoryOutcome::Tenant(tenant.number)),
            Some(_) | None => Err(Rejection::GroupUnknown(discard.group)),
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

    fn discard(tenant: &str, group: u32) -> Command {
        let discard = ForkDiscard {
            tenant: tenant.parse().unwrap(),
            group: GroupId::new(group),
            fork: 7,
        };
        Command::RecordForkDiscard(by(), discard)
    }

    #[test]
    fn discard_of_fork_is_in_audit_from_feature_level_of_promotions_on() {
        let mut world = World::begun();
        world.apply(create(new("acme", "eu-west"))).unwrap();
        let early = world.apply(discard("acme", 3)).unwrap_err();
        assert!(matches!(early, Rejection::FeatureLevel { needed: 3, .. }), "{early}");
        let all = (1..=5).map(NodeId::new).collect();
        let raise = Command::RaiseFeatureLevel(by(), FEATURE_LEVEL_MAX, all);
        world.apply(raise).unwrap();
        let before = world.directory.view().clone();
        let number = before.tenant_named(&"acme".parse().unwrap()).unwrap().number;
        // Asked twice it is there twice: the audit says what was asked for.
        for _ in 0..2 {
            let recorded = world.apply(discard("acme", 3));
            assert_eq!(recorded, Ok(DirectoryOutcome::Tenant(number)));
        }
        let unknown = world.apply(discard("other", 3)).unwrap_err();
        assert!(matches!(unknown, Rejection::TenantUnknown(_)), "{unknown}");
        for group in [0, 99] {
            let unknown = world.apply(discard("acme", group)).unwrap_err();
            assert_eq!(unknown, Rejection::GroupUnknown(GroupId::new(group)));
        }
        let records = world.directory.audit().newest_first();
        let of_acme = records.filter(|record| record.subject == "acme");
        let actions: Vec<&str> = of_acme.map(|record| &record.action[..]).collect();
        let discarded = "discard fork 7 in group 3";
        assert_eq!(actions, [discarded, discarded, "create tenant"]);
    }

    #[test]
    fn encoding_of_fork_discard_stays() {
        let bytes = discard("acme", 3).encode();
        let by_len = 1 + by().who.len() + 1 + by().reason.len();
        assert_eq!(bytes[0], 32);
        assert_eq!(hex(&bytes[1 + by_len..]), "0461636d650307");
    }
}
