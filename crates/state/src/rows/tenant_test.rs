//! Round trips of tenant records.

use proptest::prelude::*;

use super::*;

fn epochs() -> impl Strategy<Value = Epoch> {
    (0..=Epoch::MAX.get()).prop_map(|number| Epoch::new(number).unwrap())
}

fn groups() -> impl Strategy<Value = GroupId> {
    any::<u32>().prop_map(GroupId::new)
}

fn revisions() -> impl Strategy<Value = Revision> {
    any::<u64>().prop_map(Revision::from_u64)
}

fn sequences() -> impl Strategy<Value = Sequence> {
    (0..=Sequence::MAX.get()).prop_map(|number| Sequence::new(number).unwrap())
}

fn operations() -> impl Strategy<Value = OperationId> {
    any::<u64>().prop_map(OperationId)
}

fn roles() -> impl Strategy<Value = Role> {
    let previous = prop_oneof![
        Just(PreviousRole::Owner),
        Just(PreviousRole::Follower),
        groups().prop_map(PreviousRole::Relinquished),
        Just(PreviousRole::None)
    ];
    prop_oneof![
        Just(Role::Owner),
        groups().prop_map(|home| Role::Follower { home }),
        (groups(), operations(), epochs()).prop_map(|(home, operation, epoch)| Role::Heir { home, operation, epoch }),
        (operations(), groups(), epochs(), revisions()).prop_map(|(operation, to, epoch, last)| Role::Relinquished {
            operation,
            to,
            epoch,
            last
        }),
        (operations(), epochs(), previous).prop_map(|(operation, epoch, previous)| Role::Frozen {
            operation,
            epoch,
            previous
        }),
        Just(Role::Erased),
    ]
}

prop_compose! {
    fn digests()(keys: u128, outcomes: u128) -> Digests {
        Digests { keys, outcomes }
    }
}

prop_compose! {
    fn copies()(number: u32, revision in revisions(), index: u64, time: u64, as_of: u64, digests in digests(), keys: u64, len: u64, retention_floor in revisions(), edge: u64, swept in sequences(), trimmed in sequences()) -> CopyState {
        CopyState { number, revision, index, time: TenantTime(time), as_of, digests, keys, len, retention_floor, edge: TenantTime(edge), swept, trimmed, rewound: false }
    }
}

prop_compose! {
    fn shadows()(state in copies(), number: u64, seed in revisions(), loaded in sequences(), clients: Vec<(u128, u64)>, read_at in revisions()) -> ShadowCopy {
        ShadowCopy { state, number: SeedNumber(number), seed, loaded, clients: clients.into_iter().map(|(up_to, at)| ClientRange { up_to: ClientId(up_to), read_at: Revision::from_u64(at) }).collect(), read_at, windows_only: false }
    }
}

prop_compose! {
    fn sessions()(home in groups(), incarnation: u32, epoch in epochs(), number: u64, attached: bool) -> AttachSession {
        AttachSession { home, incarnation: Incarnation(incarnation), epoch, number: AttachNumber(number), attached }
    }
}

fn tails() -> impl Strategy<Value = Option<Tail>> {
    prop::option::of((revisions(), any::<u64>()).prop_map(|(after, len)| Tail { after, len }))
}

prop_compose! {
    fn records()(
        role in roles(),
        (epoch, promised, first) in (epochs(), epochs(), epochs()),
        (incarnation, index, refused) in any::<(u32, u64, u64)>(),
        (goes_on, suspect, copies) in any::<(bool, bool, u32)>(),
        uncounted in prop::collection::vec(groups(), 0..3),
        accepted in prop::option::of((revisions(), digests())),
        session in prop::option::of(sessions()),
        (attach, seeds) in any::<(u64, u64)>(),
        live in copies(),
        shadow in prop::option::of(shadows()),
        forks in prop::collection::vec((copies(), sequences(), tails()), 0..2),
        rewind in prop::option::of((any::<(u32, bool)>(), sequences())),
        lacks_outcomes: bool,
        remote in prop_oneof![Just(0), any::<u64>()],
    ) -> TenantRecord {
        let lineage = Lineage::starting(first);
        let live = CopyState { rewound: lacks_outcomes, ..live };
        TenantRecord {
            role, epoch, promised,
            view_version: DirectoryVersion { incarnation: Incarnation(incarnation), index },
            refused_up_to: OperationId(refused),
            policy: if goes_on { LeaseLossPolicy::Continue } else { LeaseLossPolicy::Stop },
            uncounted, session, suspect, live, shadow, copies,
            attach: AttachNumber(attach),
            seeds: SeedNumber(seeds),
            accepted: accepted.map(|(revision, digests)| Handover { revision, digests }),
            forks: forks.into_iter().map(|(copy, point, tail)| Fork { copy, lineage: lineage.clone(), point, tail }).collect(),
            rewind: rewind.map(|((fork, lacks_outcomes), next)| Rewind { fork, next, lacks_outcomes }),
            lineage, remote,
        }
    }
}

proptest! {
    #[test]
    fn record_round_trips(record in records()) {
        prop_assert_eq!(decode(encode(&record)), Ok(record));
    }

    #[test]
    fn key_round_trips(group in groups(), install: u32, tenant: u64) {
        let tenant = TenantNumber::new(tenant);
        prop_assert_eq!(parse_key(key(GroupPrefix { group, install }, tenant)), Ok(tenant));
    }
}

#[test]
fn record_encoding_is_fixed() {
    let mut record = TenantRecord::unknown();
    record.role = Role::Owner;
    record.epoch = Epoch::FIRST;
    record.promised = Epoch::FIRST;
    record.lineage = Lineage::starting(Epoch::FIRST);
    record.live.revision = "1.3".parse().unwrap();
    record.live.index = 9;
    record.live.digests = Digests { keys: 3, outcomes: 4 };
    record.live.keys = 2;
    let hex: String = encode(&record).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "020101010000010101ffffffffff1f000000000000000000838080808020090000000000000000000000000000000000030000000000000000000000000000000402000000000000000000"
    );
}

#[test]
fn encoding_of_rewound_record_is_fixed() {
    let mut record = TenantRecord::unknown();
    record.live.rewound = true;
    record.forks.push(Fork {
        copy: CopyState {
            number: 2,
            revision: "1.9".parse().unwrap(),
            ..CopyState::default()
        },
        lineage: Lineage::starting(Epoch::FIRST),
        point: Sequence::new(5).unwrap(),
        tail: Some(Tail {
            after: "1.5".parse().unwrap(),
            len: 300,
        }),
    });
    record.rewind = Some(Rewind {
        fork: 2,
        next: Sequence::new(7).unwrap(),
        lacks_outcomes: true,
    });
    let hex: String = encode(&record).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "030600000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000001028980808080200000000000000000000000000000000000000000000000000000000000000000000000000000000000010101ffffffffff1f00050001010207010101858080808020ac02"
    );
}
