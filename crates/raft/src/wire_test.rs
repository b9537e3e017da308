use super::*;
use crate::types::{Commands, Entry, LeaderId, LogId, Membership, Payload, StoredMembership};
use openraft::vote::{RaftLeaderId, RaftVote};
use std::collections::BTreeSet;

fn id(index: u64) -> LogId {
    LogId {
        leader_id: LeaderId::new(7, 1),
        index,
    }
}

fn a_vote() -> Vote {
    Vote::from_leader_id(LeaderId::new(7, 1), true)
}

#[test]
fn append_request_bytes_are_fixed() {
    let request = AppendRequest {
        vote: a_vote(),
        prev_log_id: Some(id(3)),
        entries: vec![Entry {
            log_id: id(4),
            payload: Payload::Normal(Commands(Bytes::from_static(b"put"))),
        }],
        leader_commit: None,
    };
    let be = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
    let expected = [
        &be(&[9, 7, 1])[..],
        &[1, 1],
        &be(&[7, 1, 3]),
        &[0, 1, 29, 1],
        &be(&[7, 1, 4]),
        b"\x01put",
    ];
    assert_eq!(append(&request, 9), expected.concat());
}

#[test]
fn append_requests_and_responses_round_trip() {
    let request = AppendRequest {
        vote: a_vote(),
        prev_log_id: None,
        entries: (0..3)
            .map(|index| Entry {
                log_id: id(index),
                payload: Payload::Blank,
            })
            .collect(),
        leader_commit: Some(id(1)),
    };
    let read = read_append(append(&request, 9)).unwrap();
    assert_eq!((read.time_ms, format!("{:?}", read.body)), (9, format!("{request:?}")));
    for answer in [
        Ok(None),
        Ok(Some(id(4))),
        Err(AppendError::Conflict(id(2))),
        Err(AppendError::HigherVote(a_vote())),
    ] {
        let read = read_append_response(append_response(&answer, 9)).unwrap();
        assert_eq!((read.time_ms, read.body), (9, answer));
    }
}

#[test]
fn votes_and_transfers_round_trip() {
    let mut request = VoteRequest::new(a_vote(), Some(id(4)));
    request.leadership_transfer = true;
    assert_eq!(read_vote(vote(&request)).unwrap(), request);
    let answer = VoteResponse::new(a_vote(), None, true);
    let read = read_vote_response(vote_response(&answer, 9)).unwrap();
    assert_eq!((read.time_ms, read.body), (9, answer));
    let read = read_bootstrap_response(bootstrap_response(VoterState::Initial, 9)).unwrap();
    assert_eq!((read.time_ms, read.body), (9, VoterState::Initial));
    assert_eq!(read_digest(digest(7)), Ok(7));
    for answer in [None, Some(u128::MAX)] {
        assert_eq!(read_digest_response(digest_response(answer)), Ok(answer));
    }
    let request = TransferRequest::new(a_vote(), 3, Some(id(4)));
    assert_eq!(read_transfer(transfer(&request)).unwrap(), request);
    for answer in [
        Ok(()),
        Err(TransferLeaderError::VoteChanged {
            expected: a_vote(),
            actual: a_vote(),
        }),
        Err(TransferLeaderError::LogNotFlushed {
            expected: Some(id(4)),
            actual: None,
        }),
    ] {
        assert_eq!(read_transfer_response(transfer_response(&answer)).unwrap(), answer);
    }
}

#[test]
fn snapshot_head_round_trips() {
    let membership = Membership::new_with_defaults(vec![BTreeSet::from([1, 2])], [3]);
    let meta = SnapshotMeta {
        last_log_id: Some(id(9)),
        last_membership: StoredMembership::new(Some(id(0)), membership),
    };
    assert_eq!(
        read_snapshot_head(snapshot_head(&a_vote(), &meta)).unwrap(),
        (a_vote(), meta)
    );
    assert_eq!(read_snapshot_end(snapshot_end(2, 9)).unwrap(), (2, 9));
}

#[test]
fn unknown_version_or_kind_is_rejected() {
    let sender = Sender {
        group: GroupId::new(1),
        incarnation: Incarnation::FIRST,
        node: NodeId::new(2),
    };
    let envelope = sender.envelope(MessageKind::Vote, 0, Bytes::new());
    assert_eq!(kind(&envelope), Ok(MessageKind::Vote));
    assert!(body(envelope.clone(), MessageKind::Append).is_err());
    let other_kind = RaftEnvelope {
        kind: 99,
        ..envelope.clone()
    };
    assert!(kind(&other_kind).is_err());
    for version in [VERSION - 1, VERSION + 1] {
        let other_version = RaftEnvelope {
            version,
            ..envelope.clone()
        };
        assert!(kind(&other_version).is_err());
    }
}

/// Decoder of each kind of body.
const READERS: [fn(Bytes) -> bool; 12] = [
    |body| read_append(body).is_ok(),
    |body| read_append_response(body).is_ok(),
    |body| read_vote(body).is_ok(),
    |body| read_vote_response(body).is_ok(),
    |body| read_transfer(body).is_ok(),
    |body| read_transfer_response(body).is_ok(),
    |body| read_snapshot_head(body).is_ok(),
    |body| read_snapshot_end(body).is_ok(),
    |body| read_snapshot_response(body).is_ok(),
    |body| read_bootstrap_response(body).is_ok(),
    |body| read_voter_state(body).is_ok(),
    |body| read_fetch(body).is_ok(),
];

/// Returns a body of each kind that has variable parts.
fn bodies() -> Vec<(usize, Bytes)> {
    let entry = |payload| Entry { log_id: id(4), payload };
    let membership = Membership::new_with_defaults(vec![BTreeSet::from([1, 2])], [3]);
    let request = AppendRequest {
        vote: a_vote(),
        prev_log_id: Some(id(3)),
        entries: vec![
            entry(Payload::Normal(Commands(Bytes::from_static(b"put")))),
            entry(Payload::Membership(membership.clone())),
        ],
        leader_commit: Some(id(3)),
    };
    let meta = SnapshotMeta {
        last_log_id: Some(id(9)),
        last_membership: StoredMembership::new(Some(id(0)), membership),
    };
    vec![
        (0, append(&request, 9)),
        (1, append_response(&Ok(Some(id(4))), 9)),
        (2, vote(&VoteRequest::new(a_vote(), Some(id(4))))),
        (6, snapshot_head(&a_vote(), &meta)),
    ]
}

proptest::proptest! {
    #[test]
    fn arbitrary_bodies_are_decoded_or_rejected(
        reader in 0..READERS.len(),
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120),
    ) {
        READERS[reader](bytes.into());
    }

    #[test]
    fn altered_bodies_are_decoded_or_rejected(
        which in proptest::prelude::any::<proptest::sample::Index>(),
        at in proptest::prelude::any::<proptest::sample::Index>(),
        byte: u8,
        cut: bool,
    ) {
        let bodies = bodies();
        let (reader, body) = which.get(&bodies);
        proptest::prop_assert!(READERS[*reader](body.clone()));
        let at = at.index(body.len());
        if cut {
            proptest::prop_assert!(!READERS[*reader](body.slice(..at)), "a part of a body is refused");
        } else {
            let mut altered = body.to_vec();
            altered[at] = byte;
            READERS[*reader](altered.into());
        }
    }
}

/// A machine with a new disk answers at the address of the node that it replaces.
#[test]
fn response_of_another_node_is_refused() {
    let sender = Sender {
        group: GroupId::new(1),
        incarnation: Incarnation::FIRST,
        node: NodeId::new(5),
    };
    let response = sender.envelope(MessageKind::AppendResponse, 1, Bytes::new());
    assert!(response_from(NodeId::new(5), response.clone()).is_ok());
    let (asked, answering) = (NodeId::new(4), NodeId::new(5));
    assert_eq!(response_from(asked, response), Err(OtherNode { asked, answering }));
}
