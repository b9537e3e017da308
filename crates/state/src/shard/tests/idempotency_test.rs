//! A write is executed once, however often it is sent and however much is evicted.

use bytes::Bytes;
use stead_types::{ClientId, IdempotencyKey, Revision, Sequence, TenantTime};

use super::group::{Group, TENANT};
use crate::shard::{
    ApplyResult,
    command::{ChunkContent, Effect, Operation, WindowLimits, Write},
    idempotency_window::{CLIENT_EVICTED_MAX, EVICTED_MAX, IDEMPOTENCY_MS_MAX, IDEMPOTENCY_MS_MIN, OUTCOMES_MAX},
    record::ClientsLoaded,
};

fn limited(limits: WindowLimits, client: u128, sequence: u64, first_sent: u64) -> Bytes {
    let key = IdempotencyKey {
        client: ClientId(client),
        sequence,
        first_sent: TenantTime(first_sent),
    };
    let operation = Operation::new("k", Effect::put("v"));
    let write = Write::new(TENANT, Some(key), operation);
    Write { limits, ..write }.encode()
}

fn write(client: u128, sequence: u64, first_sent: u64) -> Bytes {
    limited(WindowLimits::default(), client, sequence, first_sent)
}

/// Returns the sequence of the revision of a write that was executed now.
fn executed(answer: &ApplyResult) -> Option<u64> {
    let ApplyResult::Write(written) = answer else {
        return None;
    };
    (!written.repeated).then(|| written.revision.sequence().get())
}

fn is_repeated(answer: &ApplyResult) -> bool {
    matches!(answer, ApplyResult::Write(written) if written.repeated)
}

/// Returns the rejection of a write outside the window, as of what the group has applied.
fn expired(home: &Group, edge: u64, now: u64) -> ApplyResult {
    let at = home.record().live.evaluation_point();
    assert_eq!(at.time, TenantTime(now));
    let edge = TenantTime(edge);
    ApplyResult::Expired { edge, at }
}

fn outcomes(group: &Group) -> usize {
    let clients = group.shard.clients(TENANT).unwrap();
    let counted: usize = clients.windows().values().map(|window| window.outcomes().count()).sum();
    assert_eq!((clients.outcomes(), group.shard.outcomes()), (counted, counted));
    counted
}

/// Invariant 2 of a window: at 2,000 writes a second, a minute long.
#[test]
fn outcomes_of_last_minute_are_kept_at_any_rate() {
    let mut home = Group::owner();
    let (count, per_ms) = (2 * IDEMPOTENCY_MS_MIN, 2);
    for number in 0..count {
        let now = 1_000 + number / per_ms;
        assert!(executed(&home.apply(now, write(1, number, now.saturating_sub(10_000)))).is_some());
    }
    let now = 1_000 + (count - 1) / per_ms;
    for number in [0, 1, count / 2, count - 1] {
        assert!(is_repeated(&home.apply(now, write(1, number, 1_000))), "{number}");
    }
    assert_eq!(outcomes(&home), count as usize);
    home.reopen();
    assert!(is_repeated(&home.apply(now, write(1, 0, 1_000))));

    // A minute later all but as many as are kept for longer may go, and more go than come.
    let later = now + IDEMPOTENCY_MS_MIN + 1;
    for number in 0..500 {
        home.apply(later, write(1, count + number, now));
    }
    assert_eq!(outcomes(&home), count as usize - 500 * (EVICTED_MAX - 1));
    let gone = 500 * EVICTED_MAX as u64;
    let edge = 1_000 + (gone - 1) / per_ms;
    assert_eq!(home.apply(later, write(1, 0, 1_000)), expired(&home, edge, later));
    assert!(is_repeated(&home.apply(later, write(1, gone, 1_000))));
    home.reopen();
    assert_eq!(home.apply(later, write(1, 0, 1_000)), expired(&home, edge, later));
    assert!(is_repeated(&home.apply(later, write(1, gone, 1_000))));
}

/// Everything happens in one millisecond: an evicted outcome then could not be told from a current write.
#[test]
fn eviction_keeps_tenant_time_above_every_edge() {
    let mut home = Group::owner();
    for number in 0..=OUTCOMES_MAX as u64 {
        assert!(executed(&home.apply(1_000, write(1, number, 0))).is_some());
    }
    assert!(executed(&home.apply(1_000, write(1, 9_999, 1_000))).is_some());
    let later = 1_001 + IDEMPOTENCY_MS_MIN;
    home.apply(later, write(1, 10_000, 1_000));
    let window = home.shard.clients(TENANT).unwrap().windows()[&ClientId(1)].clone();
    assert_eq!((window.edge().0, home.record().live.time.0), (1_000, later));
    assert!(executed(&home.apply(later, write(1, 10_001, later))).is_some());
}

#[test]
fn oldest_outcome_beyond_count_is_evicted_after_a_minute() {
    let mut home = Group::owner();
    for number in 0..OUTCOMES_MAX as u64 {
        assert!(executed(&home.apply(1_000 + number, write(1, number, 0))).is_some());
    }
    let now = 1_001 + IDEMPOTENCY_MS_MIN;
    assert!(is_repeated(&home.apply(now, write(1, 0, 0))));
    home.apply(now, write(1, OUTCOMES_MAX as u64, 1_000));
    assert_eq!(home.apply(now, write(1, 0, 0)), expired(&home, 1_000, now));
    assert!(is_repeated(&home.apply(now, write(1, 1, 0))));
    home.reopen();
    assert_eq!(home.apply(now, write(1, 0, 0)), expired(&home, 1_000, now));
}

#[test]
fn expired_outcomes_are_evicted_by_next_write() {
    let mut home = Group::owner();
    home.apply(1_000, write(1, 0, 0));
    home.apply(2_000, write(1, 1, 1_000));
    let later = 1_500 + IDEMPOTENCY_MS_MAX;
    assert!(is_repeated(&home.apply(later, write(1, 0, 0))));
    home.apply(later, write(1, 2, 2_000));
    assert_eq!(home.apply(later, write(1, 0, 0)), expired(&home, 1_000, later));
    assert!(is_repeated(&home.apply(later, write(1, 1, 1_000))));
    assert_eq!(
        home.apply(later, write(1, 3, 1_000)),
        expired(&home, 1_000, later),
        "a stamp at the edge"
    );
    assert!(executed(&home.apply(later, write(1, 3, 1_001))).is_some());
}

#[test]
fn idempotency_key_from_the_future_is_rejected() {
    let mut home = Group::owner();
    home.apply(1_000, write(1, 0, 0));
    assert_eq!(home.apply(9_000, write(1, 1, 1_001)), expired(&home, 0, 1_000));
    assert!(executed(&home.apply(9_000, write(1, 1, 1_000))).is_some());
}

const FEW: WindowLimits = WindowLimits {
    clients: 20,
    outcomes: 1_000,
};

#[test]
fn longest_idle_client_beyond_limit_is_evicted() {
    let mut home = Group::owner();
    let write = |client, sequence, first_sent| limited(FEW, client, sequence, first_sent);
    for client in 0..20 {
        assert!(executed(&home.apply(1_000 + client as u64, write(client, 7, 0))).is_some());
    }
    // All are young: as many more as were on their way are kept.
    assert!(executed(&home.apply(1_100, write(20, 7, 0))).is_some());
    assert_eq!(home.shard.clients(TENANT).unwrap().windows().len(), 21);

    let now = 1_100 + IDEMPOTENCY_MS_MIN;
    assert!(is_repeated(&home.apply(now, write(0, 7, 0))));
    assert!(executed(&home.apply(now, write(77_777, 1, 1_100))).is_some());
    assert_eq!(home.record().live.edge.0, 1_001, "clients 0 and 1 made room");
    assert_eq!(home.shard.clients(TENANT).unwrap().windows().len(), 20);
    assert_eq!(home.apply(now, write(0, 7, 0)), expired(&home, 1_001, now));
    assert!(is_repeated(&home.apply(now, write(2, 7, 0))));
    assert_eq!(
        home.apply(now, write(88_888, 1, 1_001)),
        expired(&home, 1_001, now),
        "an id not kept"
    );
    // Client 0 comes back with a new write; what it had written before stays refused.
    assert!(executed(&home.apply(now, write(0, 8, now))).is_some());
    assert_eq!(home.apply(now, write(0, 7, 0)), expired(&home, 1_002, now));
    home.reopen();
    assert_eq!(home.apply(now, write(0, 7, 0)), expired(&home, 1_002, now));
}

#[test]
fn idle_client_with_many_outcomes_is_evicted_in_steps() {
    let mut home = Group::owner();
    let one = WindowLimits { clients: 1, ..FEW };
    let many = 3 * CLIENT_EVICTED_MAX as u64;
    let all = WindowLimits::default();
    (0..many).for_each(|number| drop(home.apply(1_000, limited(all, 1, number, 0))));
    let now = 1_001 + IDEMPOTENCY_MS_MIN;
    for client in 2..5u128 {
        let before = outcomes(&home);
        assert!(executed(&home.apply(now, limited(one, client, 1, 1_000))).is_some());
        let less = before + 1 - outcomes(&home);
        assert!(less <= CLIENT_EVICTED_MAX + EVICTED_MAX, "{less}");
    }
    assert!(!home.shard.clients(TENANT).unwrap().windows().contains_key(&ClientId(1)));
    assert_eq!(home.apply(now, write(1, 0, 0)), expired(&home, 1_000, now));
}

#[test]
fn oldest_outcome_of_tenant_beyond_limit_is_evicted() {
    let mut home = Group::owner();
    let write = |client, sequence, first_sent| limited(FEW, client, sequence, first_sent);
    for number in 0..1_000 {
        home.apply(1_000 + number, write(u128::from(number % 10), number, 0));
    }
    let now = 1_500 + IDEMPOTENCY_MS_MIN;
    for number in 1_000..1_200 {
        assert!(executed(&home.apply(now, write(15, number, 1_999))).is_some());
        assert_eq!(outcomes(&home), 1_000, "one goes for one that comes");
    }
    for number in 0..200 {
        let client = u128::from(number % 10);
        assert!(!is_repeated(&home.apply(now, write(client, number, 0))), "{number}");
    }
    assert!(is_repeated(&home.apply(now, write(0, 990, 0))));
}

#[test]
fn only_client_beyond_tenant_limit_evicts_its_own_outcomes() {
    let mut home = Group::owner();
    let few = |sequence| limited(FEW, 1, sequence, 2_499);
    for number in 0..1_500 {
        home.apply(1_000 + number, limited(WindowLimits::default(), 1, number, 0));
    }
    let now = 2_500 + IDEMPOTENCY_MS_MIN;
    for number in 0..(500 / (EVICTED_MAX as u64 - 1) + 1) {
        assert!(executed(&home.apply(now, few(1_500 + number))).is_some());
    }
    assert_eq!(outcomes(&home), 1_000);
}

/// Checkpoint cost follows the changed pages, not the kept outcomes.
#[test]
fn checkpoint_writes_only_changed_pages() {
    let mut home = Group::owner();
    (0..20_000).for_each(|number| drop(home.apply(1_000 + number, write(1, number, 0))));
    home.shard.flush(&mut home.rows);
    let rows = home.client_rows();
    assert_eq!(rows.len(), 1 + 20_000usize.div_ceil(256));
    assert!(
        rows.values().all(|row| row.len() < 8 << 10),
        "a page is far below any limit of a row"
    );
    home.apply(22_000, write(1, 20_000, 1_000));
    home.shard.flush(&mut home.rows);
    let changed = |before: &std::collections::BTreeMap<Bytes, Bytes>,
                   after: &std::collections::BTreeMap<Bytes, Bytes>| {
        after.iter().filter(|(key, row)| before.get(*key) != Some(*row)).count()
    };
    let after = home.client_rows();
    assert_eq!(changed(&rows, &after), 2, "the head and the last page");

    // What is forgotten is not written again; a page goes when all of it is.
    (0..40).for_each(|number| drop(home.apply(85_000, write(1, 30_000 + number, 22_000))));
    home.shard.flush(&mut home.rows);
    let later = home.client_rows();
    assert!(changed(&after, &later) <= 3, "{}", changed(&after, &later));
    assert_eq!(
        after.keys().filter(|key| !later.contains_key(*key)).count(),
        40 * EVICTED_MAX / 256
    );
    let windows = home.shard.clients(TENANT).unwrap().windows().clone();
    home.reopen();
    assert_eq!(home.shard.clients(TENANT).unwrap().windows(), &windows);
}

#[test]
fn follower_evicts_what_home_evicted() {
    let mut home = Group::owner();
    let mut follower = Group::follower(&home);
    let mut number = 0;
    for step in 0..3_000u64 {
        number += 1;
        let now = 1_000 + step * IDEMPOTENCY_MS_MAX / 40;
        let client = u128::from(step * step % 37);
        home.apply(now, limited(FEW, client, number, home.record().live.time.0));
        if step % 7 == 0 {
            let data = home.data(follower.record().live.revision, Sequence::MAX);
            assert!(matches!(follower.apply(0, data.encode()), ApplyResult::Data(fed) if fed.detached.is_none()));
        }
    }
    let data = home.data(follower.record().live.revision, Sequence::MAX);
    follower.apply(0, data.encode());
    let windows = |group: &Group| group.shard.clients(TENANT).unwrap().windows().clone();
    assert_eq!(windows(&home), windows(&follower));
    assert!(windows(&home).len() < 37, "quiet clients went");
    assert_eq!(outcomes(&home), outcomes(&follower));
    let (at_home, here) = (&home.record().live, &follower.record().live);
    assert_eq!((at_home.digests, at_home.edge), (here.digests, here.edge));
}

/// A home that seeds a follower.
struct Seeding {
    home: Group,
    follower: Group,
    first: Revision,
}

impl Seeding {
    fn begin(home: Group) -> Self {
        let follower = Group::follower(&home);
        let first = home.record().live.revision;
        let mut seeding = Self { home, follower, first };
        let seed = seeding.home.next_seed(&seeding.follower);
        assert_eq!(seeding.follower.apply(0, seed.encode()), ApplyResult::Done);
        assert_eq!(seeding.follower.begin_attach(), ApplyResult::Done);
        seeding
    }

    fn loaded(&self) -> ClientsLoaded {
        self.follower.shard.clients_loaded(TENANT).unwrap()
    }

    fn chunk(&self, part: ChunkContent) -> Bytes {
        self.home.chunk(&self.follower, part).encode()
    }

    fn clients(&self, len_max: usize) -> ChunkContent {
        self.home.reading().chunk_of_clients(self.loaded(), len_max)
    }

    fn load(&mut self, part: ChunkContent) {
        let part = self.chunk(part);
        assert_eq!(self.follower.apply(0, part.clone()), ApplyResult::Done);
        assert!(
            matches!(self.follower.apply(0, part), ApplyResult::GuardFailed(_)),
            "it is taken in once"
        );
    }

    fn feed(&mut self) {
        let after = self.follower.record().shadow.as_ref().unwrap().state.revision;
        let data = self.home.data_for(&self.follower, after, Sequence::MAX);
        self.follower.apply(0, data.encode());
    }

    fn end(&mut self) {
        let changes = self.home.reading().chunk_of_changes(Sequence::ZERO, self.first, 10_000);
        self.load(changes.unwrap());
        self.feed();
        let live = self.home.record().live.clone();
        let swap = self.home.swap(&self.follower);
        assert_eq!(self.follower.apply(0, swap.encode()), ApplyResult::Done);
        let windows = |group: &Group| group.shard.clients(TENANT).unwrap().windows().clone();
        assert_eq!(windows(&self.home), windows(&self.follower));
        assert_eq!(live.edge, self.follower.record().live.edge);
        assert_eq!(outcomes(&self.home), outcomes(&self.follower));
        self.follower.reopen();
        assert_eq!(windows(&self.home), windows(&self.follower));
    }
}

/// Windows are read in two chunks, clients come and go between them.
#[test]
fn seed_loads_windows_that_change_meanwhile() {
    let mut home = Group::owner();
    for client in 1..=6 {
        home.apply(1_000 * client as u64, write(client, 1, 0));
    }
    let mut seeding = Seeding::begin(home);
    // The first half of the clients, and what has come since.
    let part = seeding.clients(130);
    assert!(matches!(&part, ChunkContent::Clients { windows, .. } if windows.len() == 3));
    seeding.load(part);
    // Time passes: this forgets clients of both halves, and begins a client in the first one anew.
    seeding.home.apply(4_500 + IDEMPOTENCY_MS_MAX, write(100, 1, 6_000));
    seeding.home.apply(4_500 + IDEMPOTENCY_MS_MAX, write(2, 9, 6_000));
    seeding.feed();
    seeding.load(seeding.clients(10_000));
    seeding.home.apply(4_600 + IDEMPOTENCY_MS_MAX, write(3, 9, 6_000));
    seeding.end();
}

/// A window that is larger than a chunk: between its parts it grows, shrinks, is removed, or begins again.
#[test]
fn seed_loads_large_window_in_parts() {
    for (step, reopens) in [(7, false), (700, true), (2_000, false)] {
        let mut home = Group::owner();
        (0..3_000).for_each(|number| drop(home.apply(1_000 + number, write(5, number, 0))));
        (0..9).for_each(|client| drop(home.apply(4_000, write(client, 9_000, 0))));
        let mut seeding = Seeding::begin(home);
        let (mut parts, mut number) = (0, 10_000);
        while !seeding.loaded().is_complete() {
            let part = seeding.clients(8_000);
            assert!(seeding.chunk(part.clone()).len() < 12_000, "a chunk is bounded");
            seeding.load(part);
            parts += 1;
            let now = 4_000 + parts * IDEMPOTENCY_MS_MIN / 2;
            for _ in 0..step {
                number += 1;
                let stamp = seeding.home.record().live.time.0;
                seeding.home.apply(now, write(5, number, stamp));
            }
            let stamp = seeding.home.record().live.time.0;
            seeding.home.apply(now, write(3, number, stamp));
            if parts % 2 == 0 {
                seeding.feed();
            }
            if reopens {
                seeding.follower.reopen();
            }
            if parts == 40 {
                break;
            }
        }
        seeding.feed();
        while !seeding.loaded().is_complete() {
            seeding.load(seeding.clients(1 << 20));
        }
        assert!(parts > 5, "{parts}");
        seeding.end();
    }
}

#[test]
fn seed_drops_partly_loaded_window_that_was_evicted() {
    for begins_anew in [false, true] {
        let mut home = Group::owner();
        (0..600).for_each(|number| drop(home.apply(1_000, write(5, number, 0))));
        let mut seeding = Seeding::begin(home);
        seeding.load(seeding.clients(1_000));
        assert!(seeding.loaded().part.is_some());
        let later = 2_000 + IDEMPOTENCY_MS_MAX;
        for number in 0..100u128 {
            let stamp = seeding.home.record().live.time.0;
            seeding.home.apply(later, write(1_000 + number, 1, stamp));
        }
        if begins_anew {
            seeding.home.apply(later, write(5, 7_000, later));
        }
        seeding.load(seeding.clients(1 << 20));
        seeding.end();
    }
}
