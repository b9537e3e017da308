//! Every method, with messages that name what a role is for and what it is not for, by callers of every role, at the node
//! that serves and at one that passes the call on. The rows are in [`table`].

mod call;
mod keys;
mod messages;
mod operators;
mod table;
mod tokens;

use std::{collections::BTreeSet, time::Duration};

use stead_api::net;
use stead_state::authorization::{REQUIREMENTS, Requirement};
use stead_testing::Fixture;
use stead_tests::process::{binary, exclusive_lock};
use tonic::{Code, transport::Channel};

use self::table::Row;

/// Callers by letter. Tenants `acme` and `other` are at home in us-east.
pub(super) const CALLERS: &[(char, &[&str])] = &[
    ('R', &["tenant-reader:acme"]),
    ('r', &["tenant-reader:acme:a/"]),
    ('W', &["tenant-writer:acme"]),
    ('w', &["tenant-writer:acme:a/"]),
    ('x', &["tenant-reader:acme:a/", "tenant-writer:acme:a/"]),
    ('A', &["tenant-admin:acme"]),
    ('B', &["tenant-admin:other"]),
    ('Z', &["tenant-admin:acme", "tenant-reader:acme", "tenant-writer:acme"]),
    ('O', &["region-operator:us-east"]),
    ('P', &["region-operator:eu-west"]),
    ('C', &["cluster-operator"]),
    ('U', &["auditor"]),
];
/// Longest wait for an answer of a call that is allowed: some of them have nothing to say.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Returns the requirement of each method that no message can make allowed or refused.
fn is_decided_by_method(requirement: Requirement) -> bool {
    matches!(requirement, Requirement::Nothing | Requirement::Credential)
}

/// A method without a row fails here, and so does one whose rows allow it to nobody or to everybody.
#[test]
fn every_method_has_rows_of_scopes() {
    let rows = table::rows();
    let known: BTreeSet<&str> = rows.iter().map(|row| row.path).collect();
    for (path, requirement) in REQUIREMENTS {
        if is_decided_by_method(*requirement) {
            continue;
        }
        assert!(
            known.contains(path),
            "{path} has no row in tests/tests/processes/scopes/table.rs"
        );
        let of_path = rows.iter().filter(|row| row.path == *path);
        assert!(
            of_path.clone().any(|row| !row.allowed.is_empty() || *path == REPLAY),
            "{path} is allowed to nobody"
        );
        // What a member's call shows, its answer leaves out.
        let is_filtered = *requirement == Requirement::Member;
        for row in of_path {
            assert!(
                is_filtered || row.allowed.len() < CALLERS.len(),
                "{path} is allowed to everybody"
            );
        }
    }
    let methods: BTreeSet<&str> = REQUIREMENTS.iter().map(|(path, _)| *path).collect();
    assert!(known.is_subset(&methods), "a row has no method");
}

/// Method whose only caller has three roles.
const REPLAY: &str = "stead.admin.v1.ForkService/ReplayFork";

struct World {
    cluster: Fixture,
    /// Token of each caller.
    tokens: Vec<(char, String)>,
    channels: Vec<(&'static str, Channel)>,
}

impl World {
    async fn start() -> Self {
        let regions = Fixture::builder()
            .binary(binary())
            .region("us-east", 1)
            .region("eu-west", 1);
        let cluster = regions.credentials().start().await.unwrap();
        for tenant in ["acme", "other"] {
            cluster.create_tenant(tenant, "us-east").await.unwrap();
            let tenant = cluster.client("us-east").await.unwrap().tenant(tenant).unwrap();
            for key in ["a/1", "b"] {
                tenant.put(key, "1").await.unwrap();
            }
        }
        let credentials = cluster.credentials().unwrap();
        let tokens = CALLERS.iter().enumerate().map(|(at, (letter, roles))| {
            let file = cluster.folder().join(format!("caller-{at}.token"));
            credentials.make_token(&format!("caller-{at}"), roles, &file).unwrap();
            (*letter, std::fs::read_to_string(file).unwrap().trim().to_owned())
        });
        let tokens = tokens.collect();
        let connect = stead_client::dial(std::collections::BTreeMap::default());
        let channels = ["us-east", "eu-west"].map(|region| {
            let node = cluster.nodes().iter().find(|node| node.region == region).unwrap();
            let channel = net::channel(&connect, &node.client, net::Keepalive::CLIENT).unwrap();
            (region, channel)
        });
        Self {
            tokens,
            channels: channels.into(),
            cluster,
        }
    }

    /// Returns the letters of the callers that a node does not refuse.
    async fn allowed(&self, row: &Row, channel: &Channel) -> String {
        let mut allowed = String::new();
        for (letter, token) in &self.tokens {
            let answer = (row.call)(channel.clone(), token.clone());
            let code = tokio::time::timeout(ANSWER_MAX, answer)
                .await
                .unwrap_or(Code::DeadlineExceeded);
            // The only method that nobody has implemented.
            let is_known = code != Code::Unimplemented || row.path.ends_with("/DeleteOperation");
            assert!(
                is_known && !matches!(code, Code::Unauthenticated | Code::Internal),
                "{} {} by {letter}: {code:?}",
                row.path,
                row.message
            );
            if code != Code::PermissionDenied {
                allowed.push(*letter);
            }
        }
        allowed
    }
}

/// Every row by every caller at both nodes: eu-west's passes on what concerns tenants and groups of us-east.
#[tokio::test]
async fn every_cell_of_scopes_is_decided_as_in_the_table() {
    let _lock = exclusive_lock();
    let world = World::start().await;
    let mut wrong = Vec::new();
    for row in table::rows() {
        for (region, channel) in &world.channels {
            let allowed = world.allowed(&row, channel).await;
            if allowed != row.allowed {
                let expected = row.allowed;
                wrong.push(format!(
                    "{} at {region}: {allowed:?} instead of {expected:?} for {}",
                    row.path, row.message
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    drop(world.cluster);
}
