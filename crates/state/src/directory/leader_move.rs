//! Record that an operator has the leadership of a group moved. The group itself moves it afterwards.

use stead_types::{GroupId, NodeId};

use super::{Directory, DirectoryOutcome, DirectoryResult, Rejection, text};
use crate::codec::{Malformed, Reader, Writer};

/// Leadership of a group that is to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderMove {
    /// The group.
    pub group: GroupId,
    /// Node that is to lead it.
    pub to: NodeId,
}

impl LeaderMove {
    pub(super) fn encode(&self, w: &mut Writer) {
        w.varint(u64::from(self.group.get())).varint(self.to.get());
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            group: text::group(r)?,
            to: text::node(r)?,
        })
    }

    /// Returns the action of the audit record.
    pub(super) fn action(&self) -> String {
        format!("move leader to node {}", self.to)
    }

    /// Returns the subject of the audit record.
    pub(super) fn subject(&self) -> String {
        format!("group {}", self.group.get())
    }
}

impl Directory {
    /// Checks what an audit record of a move of leadership names; nothing else changes.
    pub(super) fn record_leader_move(&self, leader_move: LeaderMove) -> DirectoryResult {
        self.view.settings().check_roles()?;
        match self.view.group(leader_move.group) {
            Some(_) => Ok(DirectoryOutcome::Done),
            None => Err(Rejection::GroupUnknown(leader_move.group)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{
        Command, FEATURE_LEVEL_MAX,
        directory_test::{World, by, hex},
    };

    fn to_node_2(group: u32) -> Command {
        let leader_move = LeaderMove {
            group: GroupId::new(group),
            to: NodeId::new(2),
        };
        Command::RecordLeaderMove(by(), leader_move)
    }

    #[test]
    fn move_of_leadership_is_in_audit() {
        let mut world = World::begun();
        let early = world.apply(to_node_2(1)).unwrap_err();
        assert!(matches!(early, Rejection::FeatureLevel { needed: 5, .. }), "{early}");
        let all = (1..=5).map(NodeId::new).collect();
        world
            .apply(Command::RaiseFeatureLevel(by(), FEATURE_LEVEL_MAX, all))
            .unwrap();
        let unknown = world.apply(to_node_2(99)).unwrap_err();
        assert_eq!(unknown, Rejection::GroupUnknown(GroupId::new(99)));
        for group in [0, 1] {
            world.apply(to_node_2(group)).unwrap();
        }
        let records = world.directory.audit().newest_first().take(2);
        let records: Vec<_> = records
            .map(|of| (&of.action[..], &of.subject[..], &of.who[..]))
            .collect();
        let (who, action) = (by().who, "move leader to node n2");
        assert_eq!(records, [(action, "group 1", &who[..]), (action, "group 0", &who[..])]);
    }

    #[test]
    fn encoding_of_leader_move_stays() {
        let bytes = to_node_2(3).encode();
        let by_len = 1 + by().who.len() + 1 + by().reason.len();
        assert_eq!((bytes[0], hex(&bytes[1 + by_len..])), (65, "0302".to_owned()));
    }
}
