//! `stead cluster check`: what an operator should look at before users notice it.

use std::{collections::BTreeSet, time::Duration};

use clap::Args;
use serde_json::json;
use stead_client::{Admin, ClusterInfo, Error, Group, NodeInfo, OperationFilter, OperationInfo, RegionStatus};

use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
    output::{Output, OutputTable, duration},
    verbs::backup,
};

/// Greatest staleness of a follower that connects to its home.
const STALENESS_MAX: Duration = Duration::from_secs(10);
/// Greatest distance of a voter's wall clock from the median.
const CLOCK_MAX_MS: u64 = 500;
/// Least share of a disk that is free, as a divisor of what the rows take.
const DISK_FREE_SHARE: u64 = 4;
/// Number of voters that bears the loss of one.
const VOTERS_MIN: usize = 3;

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Findings that need nothing now, such as a region of one node, are no failure
    #[arg(long)]
    allow_notes: bool,
    /// Look at the age of the newest backup of this place, too: a folder, or s3://BUCKET/PREFIX
    #[arg(long, value_name = "PLACE")]
    backups: Option<String>,
    /// Age from which the newest backup is too old
    #[arg(long, value_name = "TIME", default_value = "48h", value_parser = humantime::parse_duration)]
    backup_age_max: Duration,
}

/// Weight of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// Something is wrong.
    Problem,
    /// Something is as it was made, and bears less than it could.
    Note,
}

/// Something that an operator should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    weight: Weight,
    /// Subject of the finding.
    subject: String,
    /// Text for people: the finding, and what to do.
    text: String,
}

/// Facts about the cluster, as the nodes tell them.
struct Facts {
    cluster: ClusterInfo,
    nodes: Vec<NodeInfo>,
    groups: Vec<Group>,
    regions: Vec<RegionStatus>,
    in_flight: Vec<OperationInfo>,
}

impl Check {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let admin = context::connect(target).await?.admin();
        let mut findings = findings(&facts(&admin).await?);
        let backups = self.backups.as_deref();
        let too_old = backups.and_then(|place| backup::age(place, self.backup_age_max));
        findings.extend(too_old.map(|text| problem("backups", text)));
        let mut table = OutputTable::new(&["WEIGHT", "SUBJECT", "FINDING"], 3);
        for finding in &findings {
            let weight = match finding.weight {
                Weight::Problem => "problem",
                Weight::Note => "note",
            };
            let value = json!({ "weight": weight, "subject": finding.subject, "finding": finding.text });
            table.push(
                vec![weight.to_owned(), finding.subject.clone(), finding.text.clone()],
                value,
            );
        }
        if findings.is_empty() && target.output != Output::Json {
            eprintln!("nothing is found");
        } else {
            table.print(target.output)?;
        }
        let counts = |finding: &&Finding| finding.weight == Weight::Problem || !self.allow_notes;
        match findings.iter().filter(counts).count() {
            0 => Ok(()),
            count => Err(CommandError::new(Code::Unhealthy, format!("{count} findings"))),
        }
    }
}

async fn facts(admin: &Admin) -> Result<Facts, Error> {
    let mut regions = Vec::new();
    for region in admin.regions().await? {
        regions.push(admin.region(&region.name).await?);
    }
    let filter = OperationFilter {
        done: Some(false),
        ..OperationFilter::default()
    };
    Ok(Facts {
        cluster: admin.cluster().await?,
        nodes: admin.nodes("").await?,
        groups: admin.groups("").await?,
        regions,
        in_flight: admin.operations(&filter).await?,
    })
}

/// Returns what should be looked at, problems first.
fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    facts.nodes.iter().for_each(|node| of_node(node, &mut found));
    let versions: BTreeSet<&str> = facts.nodes.iter().filter_map(version).collect();
    if versions.len() > 1 {
        let versions: Vec<&str> = versions.into_iter().collect();
        let text = format!("nodes run versions {}: finish the upgrade", versions.join(", "));
        found.push(problem("cluster", text));
    }
    let (level, supported) = (facts.cluster.feature_level, facts.cluster.feature_level_supported);
    if level < supported {
        let text = format!(
            "feature level {level}, and nodes support {supported}: `stead cluster upgrade` shows when it is raised"
        );
        found.push(note("cluster", text));
    }
    for group in &facts.groups {
        of_group(group, &facts.nodes, &mut found);
    }
    for lag in facts.regions.iter().flat_map(|region| &region.lags) {
        of_lag(lag, &mut found);
    }
    for operation in &facts.in_flight {
        let awaited = operation.topology.iter().flat_map(|topology| &topology.awaited);
        for name in awaited {
            let text = format!(
                "it waits for node {name} to join: start it, or `stead operation cancel {}`",
                operation.name
            );
            found.push(note(&operation.name, text));
        }
    }
    found.sort_by_key(|finding| finding.weight);
    found
}

fn version(node: &NodeInfo) -> Option<&str> {
    node.status.as_ref().map(|status| status.version.as_str())
}

/// Tells whether a node was announced only.
fn is_announced(node: &NodeInfo) -> bool {
    node.peer_address.is_empty()
}

fn of_node(node: &NodeInfo, found: &mut Vec<Finding>) {
    let subject = format!("node {}", node.name);
    let Some(status) = &node.status else {
        if !is_announced(node) {
            let text = format!(
                "it does not answer: start it, or `stead node replace {}` if it is lost",
                node.name
            );
            found.push(problem(&subject, text));
        }
        return;
    };
    if !status.ready {
        found.push(problem(
            &subject,
            format!("it is not ready: `stead node status {}`", node.name),
        ));
    }
    found.extend(status.warnings.iter().map(|warning| problem(&subject, warning.clone())));
    let is_short = status.disk_free > 0 && status.disk_free < status.disk_used / DISK_FREE_SHARE;
    if is_short {
        let text = format!(
            "{} MiB of disk are free, and the rows take {} MiB: grow the disk, or move tenants",
            status.disk_free >> 20,
            status.disk_used >> 20
        );
        found.push(problem(&subject, text));
    }
}

fn of_group(group: &Group, nodes: &[NodeInfo], found: &mut Vec<Finding>) {
    let subject = match group.number {
        0 => "directory".to_owned(),
        number => format!("group {number}"),
    };
    let answers = |voter: &&u64| nodes.iter().any(|node| node.number == **voter && node.status.is_some());
    let (voters, answering) = (group.voters.len(), group.voters.iter().filter(answers).count());
    let majority = voters / 2 + 1;
    match group.status.as_ref().and_then(|status| status.leader) {
        None => found.push(problem(&subject, "it has no leader: start its nodes".to_owned())),
        Some(_) if answering <= majority && voters >= VOTERS_MIN => {
            let text = format!("{answering} of {voters} voters answer: the loss of one more stops it");
            found.push(problem(&subject, text));
        }
        Some(_) => {}
    }
    if voters < VOTERS_MIN {
        let text = format!("{voters} voters bear no loss: add nodes with `stead node add`, three are needed");
        found.push(note(&subject, text));
    }
    let clocks = group.status.iter().flat_map(|status| &status.clocks_ahead_ms);
    for (node, ahead) in clocks.filter(|(_, ahead)| ahead.unsigned_abs() > CLOCK_MAX_MS) {
        let (name, by) = (name(*node, nodes), ahead.unsigned_abs());
        let way = if *ahead < 0 { "behind" } else { "ahead of" };
        let text = format!("the wall clock of node {name} is {by} ms {way} the median: look at NTP there");
        found.push(problem(&subject, text));
    }
    if group.number == 0 {
        found.extend(directory_in_one_region(&group.voters, nodes).map(|text| note(&subject, text)));
    }
}

/// Returns the name of a node, or its number where nobody knows it.
fn name(number: u64, nodes: &[NodeInfo]) -> String {
    let known = nodes.iter().find(|node| node.number == number);
    known.map_or_else(|| number.to_string(), |node| node.name.clone())
}

/// Tells that one of several regions has most voters of the directory, so that its loss stops every change.
fn directory_in_one_region(voters: &[u64], nodes: &[NodeInfo]) -> Option<String> {
    let regions: BTreeSet<&str> = nodes.iter().map(|node| node.region.as_str()).collect();
    let of = |region: &str| {
        let votes = |node: &&NodeInfo| node.region == region && voters.contains(&node.number);
        nodes.iter().filter(votes).count()
    };
    let region = regions.iter().find(|region| of(region) * 2 > voters.len())?;
    (regions.len() > 1).then(|| {
        format!(
            "{} of {} voters are in {region}: its loss stops every change, promotions included; a third place is needed: \
             `stead region add NAME --jurisdiction LAW --nodes NODE --witness`",
            of(region),
            voters.len()
        )
    })
}

fn of_lag(lag: &stead_client::FollowerLag, found: &mut Vec<Finding>) {
    let subject = format!("group {} in {}", lag.follower_group, lag.follower_region);
    let home = format!("group {} in {}", lag.home_group, lag.home_region);
    if !lag.connected {
        return found.push(problem(&subject, format!("it does not reach {home}, which it follows")));
    }
    if lag.unreadable_tenants > 0 {
        let text = format!(
            "{} tenants of {home} cannot be read: run one version on all nodes",
            lag.unreadable_tenants
        );
        found.push(problem(&subject, text));
    }
    match lag.staleness {
        Some(staleness) if staleness > STALENESS_MAX => {
            found.push(problem(
                &subject,
                format!("it is {} behind {home}", duration(staleness)),
            ));
        }
        Some(_) | None => {}
    }
}

fn problem(subject: &str, text: String) -> Finding {
    Finding {
        weight: Weight::Problem,
        subject: subject.to_owned(),
        text,
    }
}

fn note(subject: &str, text: String) -> Finding {
    Finding {
        weight: Weight::Note,
        ..problem(subject, text)
    }
}

#[cfg(test)]
mod tests {
    use stead_client::{GroupStatus, NodeStatus};

    use super::*;

    fn node(number: u64, status: Option<NodeStatus>) -> NodeInfo {
        NodeInfo {
            number,
            name: format!("n{number}"),
            region: "eu".into(),
            client_address: "a:1".into(),
            peer_address: "a:2".into(),
            http_address: String::new(),
            witness: false,
            groups: vec![1],
            status,
        }
    }

    fn status() -> NodeStatus {
        NodeStatus {
            version: "1".into(),
            started: None,
            ready: true,
            leads: Vec::new(),
            directory_view: None,
            engine: "fjall".into(),
            disk_used: 100 << 20,
            disk_free: 1 << 30,
            memory: 0,
            lease_left: None,
            warnings: Vec::new(),
        }
    }

    fn group(voters: &[u64], leader: Option<u64>) -> Group {
        Group {
            number: 1,
            region: "eu".into(),
            incarnation: 1,
            voters: voters.to_vec(),
            home_tenants: 0,
            status: Some(GroupStatus {
                leader,
                term: 1,
                applied: 1,
                durable: 1,
                matched: Vec::new(),
                logged_time_ahead_ms: None,
                lease_left: None,
                no_lease_since: None,
                clocks_ahead_ms: Vec::new(),
            }),
        }
    }

    fn facts(nodes: Vec<NodeInfo>, groups: Vec<Group>) -> Facts {
        Facts {
            cluster: ClusterInfo {
                feature_level: 5,
                feature_level_supported: 5,
                lease_ttl: Duration::from_secs(60),
            },
            nodes,
            groups,
            regions: Vec::new(),
            in_flight: Vec::new(),
        }
    }

    fn texts(facts: &Facts) -> Vec<String> {
        let line = |finding: Finding| format!("{:?} {}: {}", finding.weight, finding.subject, finding.text);
        findings(facts).into_iter().map(line).collect()
    }

    #[test]
    fn healthy_cluster_has_no_findings() {
        let nodes = [1, 2, 3].map(|number| node(number, Some(status()))).to_vec();
        assert_eq!(texts(&facts(nodes, vec![group(&[1, 2, 3], Some(1))])), [""; 0]);
    }

    #[test]
    fn lost_node_and_group_without_spare_are_problems() {
        let nodes = vec![node(1, Some(status())), node(2, Some(status())), node(3, None)];
        let found = texts(&facts(nodes, vec![group(&[1, 2, 3], Some(1))]));
        assert!(found[0].starts_with("Problem node n3: it does not answer"), "{found:?}");
        assert!(
            found[1].contains("2 of 3 voters answer: the loss of one more stops it"),
            "{found:?}"
        );
    }

    #[test]
    fn disk_version_and_clock_are_found() {
        let full = NodeStatus {
            disk_free: 10 << 20,
            version: "2".into(),
            ..status()
        };
        let nodes = vec![node(1, Some(full)), node(2, Some(status())), node(3, Some(status()))];
        let mut wrong = group(&[1, 2, 3], None);
        if let Some(status) = &mut wrong.status {
            status.clocks_ahead_ms = vec![(2, -900), (3, 10)];
        }
        let found = texts(&facts(nodes, vec![wrong])).join("\n");
        for words in [
            "10 MiB of disk are free",
            "nodes run versions 1, 2",
            "it has no leader",
            "the wall clock of node n2 is 900 ms behind the median",
        ] {
            assert!(found.contains(words), "{found}");
        }
        assert!(!found.contains("node n3 is"), "{found}");
    }

    #[test]
    fn directory_with_most_voters_in_one_of_two_regions_is_a_note() {
        let of = |region: &str, number| NodeInfo {
            region: region.into(),
            ..node(number, Some(status()))
        };
        let directory = Group {
            number: 0,
            ..group(&[1, 2, 4], Some(1))
        };
        let two = vec![of("eu", 1), of("eu", 2), of("us", 4)];
        let found = texts(&facts(two, vec![directory.clone()]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("Note directory: 2 of 3 voters are in eu"),
            "{found:?}"
        );
        let third = vec![of("eu", 1), of("w", 2), of("us", 4)];
        assert_eq!(texts(&facts(third, vec![directory.clone()])), [""; 0]);
        let one = vec![of("eu", 1), of("eu", 2), of("eu", 4)];
        assert_eq!(texts(&facts(one, vec![directory])), [""; 0]);
    }

    #[test]
    fn warning_of_a_node_and_cut_follower_are_problems() {
        let expiring = NodeStatus {
            warnings: vec!["certificates: this node's certificate expires in 9 days".into()],
            ..status()
        };
        let found = texts(&facts(vec![node(1, Some(expiring))], Vec::new()));
        assert_eq!(
            found,
            ["Problem node n1: certificates: this node's certificate expires in 9 days"]
        );
        let lag = |connected, staleness, unreadable_tenants| stead_client::FollowerLag {
            home_group: 1,
            home_region: "eu".into(),
            follower_group: 2,
            follower_region: "us".into(),
            connected,
            applied_offset: 1,
            staleness,
            attached_tenants: 1,
            detached_tenants: 0,
            unreadable_tenants,
        };
        let of = |lag| {
            let mut found = Vec::new();
            of_lag(&lag, &mut found);
            found
                .into_iter()
                .map(|finding: Finding| finding.text)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(lag(true, Some(Duration::from_millis(300)), 0)), [""; 0]);
        assert_eq!(
            of(lag(false, None, 0)),
            ["it does not reach group 1 in eu, which it follows"]
        );
        assert!(of(lag(true, Some(Duration::from_secs(11)), 0))[0].contains("behind group 1 in eu"));
        assert!(of(lag(true, None, 2))[0].starts_with("2 tenants of group 1 in eu cannot be read"));
    }

    #[test]
    fn single_voter_is_a_note() {
        let found = texts(&facts(vec![node(1, Some(status()))], vec![group(&[1], Some(1))]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("Note group 1: 1 voters bear no loss"), "{found:?}");
    }
}
