use proptest::prelude::*;
use stead_types::Incarnation;

use super::*;

const NOW: u64 = 1_000;

fn part(tenant: u64, policy: u64, bytes: u64) -> SentPart {
    SentPart {
        tenant: TenantNumber::new(tenant),
        policy: DirectoryVersion {
            incarnation: Incarnation::FIRST,
            index: policy,
        },
        bytes,
    }
}

/// A ledger with what its disk holds, and what was really sent and reported.
struct World {
    ledger: SentLedger,
    disk: Vec<LedgerRecord>,
    sent: u64,
    reported: u64,
    /// Number of the last report that the directory has counted.
    counted: u64,
    now_ms: u64,
}

impl World {
    fn new() -> Self {
        Self {
            ledger: SentLedger::new(NodeId::new(1), NOW),
            disk: Vec::new(),
            sent: 0,
            reported: 0,
            counted: 0,
            now_ms: NOW,
        }
    }

    fn write(&mut self, records: Vec<LedgerRecord>) {
        for record in records {
            self.ledger.apply(&record);
            self.disk.push(LedgerRecord::decode(record.encode()).unwrap());
        }
    }

    fn send(&mut self, region: &str, parts: &[SentPart]) {
        let region = region.parse().unwrap();
        let missing = self.ledger.missing(&region, parts, self.now_ms);
        self.write(missing);
        self.ledger.count(&region, parts, self.now_ms);
        self.sent += parts.iter().map(|part| part.bytes).sum::<u64>();
    }

    /// Sends a report to the directory, which counts it once; its answer may be lost.
    fn report(&mut self, is_answered: bool) {
        if self.ledger.begun_report().is_none() {
            let next = self.ledger.next_report();
            self.write(next.into_iter().map(LedgerRecord::BeginReport).collect());
        }
        let Some(report) = self.ledger.begun_report().cloned() else {
            return;
        };
        if report.number > self.counted {
            self.counted = report.number;
            self.reported += report.sent.iter().map(|data| data.bytes).sum::<u64>();
        }
        if is_answered {
            self.write(vec![LedgerRecord::EndReport(report.number)]);
        }
    }

    fn forget_idle(&mut self) {
        let ended = self.ledger.forget_idle(self.now_ms);
        self.disk.extend(ended);
    }

    fn restart(&mut self) {
        self.ledger = SentLedger::new(NodeId::new(1), NOW);
        self.ledger.restore(&self.disk, self.now_ms);
        self.disk = self.ledger.as_records(false, self.now_ms);
    }

    fn stop_in_order(&mut self) {
        self.disk = self.ledger.as_records(true, self.now_ms);
        self.restart();
    }

    fn report_all(&mut self) {
        for _ in 0..20 {
            self.report(true);
        }
    }
}

#[test]
fn allowance_covers_many_small_parts() {
    let mut world = World::new();
    for _ in 0..1_000 {
        world.send("us", &[part(1, 5, 60), part(2, 5, 1)]);
    }
    assert!(world.disk.len() <= 3, "{}", world.disk.len());
    let before = world.disk.len();
    world.send("us", &[part(1, 5, 100 << 20)]);
    world.send("us", &[part(1, 5, 10 << 20)]);
    assert_eq!(world.disk.len(), before + 1, "an allowance grows with what was sent");
}

#[test]
fn policy_and_region_are_counted_apart() {
    let mut world = World::new();
    world.send("us", &[part(1, 5, 10), part(1, 6, 20)]);
    world.send("ap", &[part(1, 6, 40)]);
    let report = world.ledger.next_report().unwrap();
    let rows = report
        .sent
        .iter()
        .map(|data| (data.region.to_string(), data.policy.index, data.bytes));
    let expected = [("ap", 6, 40), ("us", 5, 10), ("us", 6, 20)];
    assert_eq!(
        rows.collect::<Vec<_>>(),
        expected.map(|(region, policy, bytes)| (region.to_owned(), policy, bytes))
    );
}

#[test]
fn orderly_stop_counts_exactly() {
    let mut world = World::new();
    world.send("us", &[part(1, 5, 700)]);
    world.report(true);
    world.send("us", &[part(1, 5, 300)]);
    world.stop_in_order();
    world.report_all();
    assert_eq!((world.sent, world.reported), (1_000, 1_000));
    world.disk = world.ledger.as_records(true, 0);
    world.now_ms += 70;
    world.restart();
    world.send("us", &[part(1, 5, 1)]);
    let next = &world.ledger.next_report().unwrap().sent[0];
    assert_eq!(
        (next.first_ms, next.last_ms),
        (NOW + 70, NOW + 70),
        "times of what was reported are over"
    );
}

#[test]
fn crash_adds_at_most_one_allowance() {
    let mut world = World::new();
    world.send("us", &[part(1, 5, 700)]);
    world.restart();
    world.report_all();
    assert_eq!(world.reported, 700 + ALLOWANCE_MIN);
    world.restart();
    world.report_all();
    assert_eq!(
        world.reported,
        700 + ALLOWANCE_MIN,
        "what is reported is not reported again"
    );
}

#[test]
fn report_is_bounded_and_goes_round() {
    let mut world = World::new();
    for tenant in 1..=SENT_ROWS_MAX as u64 + 7 {
        world.send("us", &[part(tenant, 5, 1)]);
    }
    world.report(true);
    // The tenants of the first report send again: those that were left out come first all the same.
    world.send("us", &[part(1, 5, 1)]);
    let next = world.ledger.next_report().unwrap();
    assert_eq!((world.reported, next.sent.len()), (SENT_ROWS_MAX as u64, 8));
    assert_eq!(next.sent[0].tenant, TenantNumber::new(SENT_ROWS_MAX as u64 + 1));
}

#[test]
fn idle_counts_are_forgotten_and_count_once() {
    let mut world = World::new();
    world.send("us", &[part(1, 5, 700)]);
    world.forget_idle();
    world.report(true);
    world.now_ms += IDLE_MS;
    world.send("us", &[part(2, 5, 1)]);
    world.forget_idle();
    assert_eq!(world.ledger.len(), 1, "the other one is not idle");
    world.send("us", &[part(1, 5, 50)]);
    world.stop_in_order();
    world.report_all();
    assert_eq!((world.sent, world.reported), (751, 751));
}

#[derive(Clone, Debug)]
enum Event {
    Send(u64, u64, u64),
    Report(bool),
    Pass,
    Restart,
    Stop,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1_u64..4, 1_u64..3, 0_u64..200_000).prop_map(|(tenant, policy, bytes)| Event::Send(tenant, policy, bytes)),
        3 => any::<bool>().prop_map(Event::Report),
        1 => Just(Event::Pass),
        1 => Just(Event::Restart),
        1 => Just(Event::Stop),
    ]
}

proptest! {
    /// Invariant 2.
    #[test]
    fn nothing_sent_is_left_out(events in prop::collection::vec(event(), 0..40)) {
        let mut world = World::new();
        let mut has_crashed = false;
        for event in events {
            match event {
                Event::Send(tenant, policy, bytes) => world.send("us", &[part(tenant, policy, bytes)]),
                Event::Report(is_answered) => world.report(is_answered),
                Event::Pass => {
                    world.now_ms += IDLE_MS;
                    world.forget_idle();
                }
                Event::Restart => {
                    has_crashed = true;
                    world.restart();
                }
                Event::Stop => world.stop_in_order(),
            }
        }
        world.report_all();
        prop_assert!(world.reported >= world.sent);
        prop_assert!(has_crashed || world.reported == world.sent);
    }
}
