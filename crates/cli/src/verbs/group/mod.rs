//! `stead group`.

mod shown;

use clap::Subcommand;
use stead_client::Group;

pub(super) use self::shown::{sheet, value};
use crate::{
    args::Target,
    context,
    exit::{Code, Failure},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the groups; 0 is the directory
    List {
        /// Only of this region
        #[arg(long = "of", value_name = "REGION", default_value = "")]
        of: String,
    },
    /// Show how a group is
    Status {
        /// Its number
        number: u32,
    },
    /// Hand a group's leadership to another voter
    MoveLeader {
        /// The group's number
        number: u32,
        /// The node's number; else any other voter that is up to date
        #[arg(long, value_name = "NODE")]
        to: Option<u64>,
        /// Why, for the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), Failure> {
        let admin = context::connect(target).await?.admin();
        match self {
            Self::List { of } => sheet(&admin.groups(&of).await?).print(target.output),
            Self::Status { number } => {
                let group = admin.group(number).await?;
                let ailing = ailing(&group);
                sheet(&[group]).print_one(target.output)?;
                ailing.map_or(Ok(()), |what| Err(Failure::new(Code::Unhealthy, what)))
            }
            Self::MoveLeader { number, to, reason } => {
                let moved = admin.move_leader(number, to, &reason).await;
                let group =
                    moved.map_err(|error| Failure::from(error).if_unknown("`stead group list` shows who leads"))?;
                sheet(&[group]).print_one(target.output)
            }
        }
    }
}

/// Returns what keeps a group from being well.
pub(super) fn ailing(group: &Group) -> Option<String> {
    match &group.status {
        None => Some(format!("no voter of group {} answers", group.number)),
        Some(status) => {
            let is_headless = status.leader.is_none();
            is_headless.then(|| format!("group {} has no leader", group.number))
        }
    }
}

#[cfg(test)]
mod tests {
    use stead_client::GroupStatus;

    use super::*;

    #[test]
    fn a_group_is_well_while_somebody_leads_it() {
        let group = |status| Group {
            number: 1,
            region: "eu-west".into(),
            incarnation: 0,
            voters: vec![1, 2, 3],
            home_tenants: 0,
            status,
        };
        let led_by = |leader| {
            Some(GroupStatus {
                leader,
                term: 1,
                applied: 1,
                durable: 1,
                matched: Vec::new(),
                logged_time_ahead_ms: None,
                clocks_ahead_ms: Vec::new(),
            })
        };
        assert_eq!(ailing(&group(led_by(Some(2)))), None);
        assert_eq!(ailing(&group(led_by(None))).as_deref(), Some("group 1 has no leader"));
        assert_eq!(ailing(&group(None)).as_deref(), Some("no voter of group 1 answers"));
    }
}
