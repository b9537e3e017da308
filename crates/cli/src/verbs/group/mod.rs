//! `stead group`.

mod add;
mod display;
mod promote;

use clap::Subcommand;
use stead_client::{Admin, Group};

pub(super) use self::display::{table, value};
use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the groups; 0 is the directory
    List {
        /// Only groups of this region
        #[arg(long = "of", value_name = "REGION", default_value = "")]
        of: String,
    },
    /// Show the status of a group
    Status {
        /// Number of the group
        number: u32,
    },
    /// Add a group to a region, on nodes that it has; tenants come with `stead region spread`
    Add(add::Add),
    /// Give every tenant of a group that is lost another home, from the copies that are left
    Promote(promote::Promote),
    /// Transfer the leadership of a group to another voter
    MoveLeader {
        /// Number of the group
        number: u32,
        /// Name or number of the node; else the other voter that has most of the log. It must be alive and caught up
        #[arg(long, value_name = "NODE")]
        to: Option<String>,
        /// Reason, for the audit log
        #[arg(long, default_value = "")]
        reason: String,
    },
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        match self {
            Self::Add(verb) => verb.run(target).await,
            Self::Promote(verb) => verb.run(target).await,
            Self::List { of } => {
                let groups = context::connect(target).await?.admin().groups(&of).await?;
                table(&groups).print(target.output)
            }
            Self::Status { number } => {
                let admin = context::connect(target).await?.admin();
                let group = admin.group(number).await?;
                let health_problem = health_problem(&group);
                table(&[group]).print_one(target.output)?;
                health_problem.map_or(Ok(()), |what| Err(CommandError::new(Code::Unhealthy, what)))
            }
            Self::MoveLeader { number, to, reason } => {
                let admin = context::connect(target).await?.admin();
                let to = match to {
                    Some(to) => Some(node_number(&admin, &to).await?),
                    None => None,
                };
                let moved = admin.move_leader(number, to, &reason).await;
                let group = moved
                    .map_err(|error| CommandError::from(error).if_unknown("`stead group list` shows who leads"))?;
                table(&[group]).print_one(target.output)
            }
        }
    }

    /// Tells whether the verb handles Ctrl-C itself, because what it has begun goes on.
    pub(crate) fn detaches(&self) -> bool {
        matches!(self, Self::Add(_) | Self::Promote(_))
    }
}

/// Returns the number of a node that is given by its name or number.
async fn node_number(admin: &Admin, node: &str) -> Result<u64, CommandError> {
    if let Ok(number) = node.parse() {
        return Ok(number);
    }
    let nodes = admin.nodes("").await?;
    let found = nodes.iter().find(|known| known.name == node).map(|known| known.number);
    found.ok_or_else(|| {
        let names: Vec<&str> = nodes.iter().map(|known| known.name.as_str()).collect();
        let what = format!("--to: the cluster has no node {node}; nodes are {}", names.join(", "));
        CommandError::new(Code::Usage, what)
    })
}

/// Returns the reason why a group is unhealthy.
pub(super) fn health_problem(group: &Group) -> Option<String> {
    match &group.status {
        None => Some(format!("no voter of group {} answers", group.number)),
        Some(status) if status.leader.is_none() => Some(format!("group {} has no leader", group.number)),
        Some(status) => status.no_lease_since.map(|since| {
            let since = humantime::format_rfc3339_seconds(since);
            let number = group.number;
            format!("group {number} has had no lease since {since}: its tenants that stop without one are not served")
        }),
    }
}

#[cfg(test)]
mod tests {
    use stead_client::GroupStatus;

    use super::*;

    #[test]
    fn group_with_leader_is_healthy() {
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
                lease_left: None,
                no_lease_since: None,
                clocks_ahead_ms: Vec::new(),
            })
        };
        assert_eq!(health_problem(&group(led_by(Some(2)))), None);
        assert_eq!(
            health_problem(&group(led_by(None))).as_deref(),
            Some("group 1 has no leader")
        );
        let without_lease = led_by(Some(2)).map(|status| GroupStatus {
            no_lease_since: Some(std::time::SystemTime::UNIX_EPOCH),
            ..status
        });
        let problem = health_problem(&group(without_lease)).unwrap();
        assert!(
            problem.starts_with("group 1 has had no lease since 1970-01-01T00:00:00Z"),
            "{problem}"
        );
        assert_eq!(
            health_problem(&group(None)).as_deref(),
            Some("no voter of group 1 answers")
        );
    }
}
