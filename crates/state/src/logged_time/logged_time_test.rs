//! Scripts and random histories against the invariants.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    confirmed_for: Duration::from_millis(500),
    answered_for: Duration::from_secs(2),
};
const BEAT: Duration = Duration::from_millis(100);
/// Wall clock at the boot clock's zero.
const EPOCH_MS: u64 = 1_750_000_000_000;
const HOUR_MS: i64 = 3_600_000;

fn nodes(count: u64) -> BTreeSet<NodeId> {
    (1..=count).map(NodeId::new).collect()
}

/// A leader, node 1, and the wall clocks of its voters with their errors.
struct World {
    time: LoggedTime,
    now: Duration,
    wrong_ms: Vec<i64>,
}

impl World {
    fn new(wrong_ms: &[i64], found_ms: u64) -> Self {
        let mut world = Self {
            time: LoggedTime::new(NodeId::new(1), nodes(wrong_ms.len() as u64), LIMITS, found_ms),
            now: Duration::from_secs(1_000),
            wrong_ms: wrong_ms.to_vec(),
        };
        world.ask(wrong_ms.len());
        world
    }

    /// Returns a leader whose election happened while wall clocks were right.
    fn leading(wrong_ms: &[i64]) -> Self {
        let mut world = Self::new(wrong_ms, EPOCH_MS + 1_000_000);
        world.time.start_leading(world.now);
        world
    }

    fn wall(&self, voter: usize) -> u64 {
        let right = EPOCH_MS + u64::try_from(self.now.as_millis()).unwrap();
        right.saturating_add_signed(self.wrong_ms[voter])
    }

    /// Delivers the responses of the first `count` voters.
    fn ask(&mut self, count: usize) {
        self.time.record_own_clock(self.now, self.wall(0));
        for voter in 1..count {
            let exchange = Exchange {
                sent: self.now,
                received: self.now,
                wall_ms: self.wall(voter),
            };
            self.time.record_reply(NodeId::new(voter as u64 + 1), exchange);
        }
    }

    /// Passes time in which `answering` voters respond to each heartbeat.
    fn pass(&mut self, time: Duration, answering: usize) {
        let end = self.now + time;
        while self.now < end {
            self.now = end.min(self.now + BEAT);
            self.ask(answering);
        }
    }

    fn read(&mut self) -> i64 {
        i64::try_from(self.time.now(self.now)).unwrap()
    }

    /// Returns how far logged time is ahead of the right time.
    fn ahead(&mut self) -> i64 {
        self.read() - i64::try_from(EPOCH_MS + u64::try_from(self.now.as_millis()).unwrap()).unwrap()
    }

    fn notices(&mut self) -> Vec<Notice> {
        self.time.take_notices(self.now)
    }
}

#[test]
fn logged_time_with_right_clocks_follows_boot_clock() {
    let mut world = World::leading(&[0, 0, 0]);
    world.pass(Duration::from_secs(3_600), 3);
    assert_eq!(world.ahead(), 0);
    assert_eq!(world.notices(), []);
}

/// Invariants 2 and 5: cases c1 and c2.
#[test]
fn leader_clock_leap_moves_nothing_and_alarms_once() {
    for leap in [2 * HOUR_MS, -HOUR_MS] {
        let mut world = World::leading(&[0, 0, 0]);
        world.pass(Duration::from_secs(10), 3);
        world.wrong_ms[0] = leap;
        world.pass(Duration::from_secs(5), 3);
        assert_eq!(world.ahead(), 0);
        let alarm = Alarm::Clock(NodeId::new(1));
        assert_eq!(world.notices(), [Notice::Raised(alarm, leap * 1_000)]);
        assert_eq!(world.notices(), []);
        assert_eq!(world.time.report(world.now).unwrap().alarms, [(alarm, leap * 1_000)]);
        world.wrong_ms[0] = 0;
        world.pass(BEAT, 3);
        assert_eq!(world.notices(), [Notice::Ended(alarm)]);
        world.pass(Duration::from_secs(60), 3);
        assert_eq!((world.ahead(), world.notices()), (0, Vec::new()));
    }
}

/// Invariant 4.
#[test]
fn group_of_one_steers_toward_own_clock() {
    let mut world = World::leading(&[0]);
    world.wrong_ms[0] = 5_000;
    world.pass(Duration::from_secs(10), 1);
    assert!((900..=1_000).contains(&world.ahead()), "{}", world.ahead());
    world.pass(Duration::from_secs(120), 1);
    assert!((4_980..=5_000).contains(&world.ahead()), "{}", world.ahead());
}

/// Invariant 4.
#[test]
fn two_answering_voters_do_not_steer_and_raise_alarm() {
    let mut world = World::leading(&[7_000, 7_000, 0]);
    world.wrong_ms = vec![7_000, 7_000, 7_000];
    world.pass(Duration::from_secs(2), 2);
    let before = world.ahead();
    world.pass(Duration::from_secs(10), 2);
    assert_eq!(world.ahead(), before, "two clocks of three");
    assert_eq!(world.notices(), [Notice::Raised(Alarm::Unsteered, 0)]);
    assert!(!world.time.report(world.now).unwrap().is_steered);
    world.pass(Duration::from_secs(1), 3);
    assert_eq!(world.notices(), [Notice::Ended(Alarm::Unsteered)]);
    let mut pair = World::leading(&[7_000, 7_000]);
    pair.pass(Duration::from_secs(10), 2);
    assert_eq!(
        (pair.ahead(), pair.notices()),
        (0, Vec::new()),
        "a pair can never be steered"
    );
}

/// Invariant 3.
#[test]
fn time_without_majority_does_not_count() {
    let mut world = World::leading(&[0, 0, 0]);
    world.pass(Duration::from_secs(10), 3);
    world.pass(Duration::from_secs(15), 1);
    assert!((-15_000..=-14_400).contains(&world.ahead()), "{}", world.ahead());
    let behind = world.ahead();
    world.pass(BEAT, 3);
    assert!(world.ahead() - behind <= 110, "the gap is not made up for at once");
    world.pass(Duration::from_secs(100), 3);
    assert!((-5_000..=-4_400).contains(&world.ahead()), "{}", world.ahead());
}

/// Invariant 3: the processes of all nodes are frozen.
#[test]
fn leader_frozen_with_all_nodes_counts_no_time() {
    for voters in [1, 3] {
        let mut world = World::leading(&vec![0; voters]);
        world.pass(Duration::from_secs(10), voters);
        world.now += Duration::from_secs(15);
        assert!(world.ahead() <= -14_400, "{}", world.ahead());
        world.ask(voters);
        world.pass(BEAT, voters);
        assert!(world.ahead() <= -14_300, "{}", world.ahead());
    }
}

/// Invariant 3.
#[test]
fn responses_to_earlier_leadership_confirm_nothing() {
    let mut world = World::leading(&[0, 0, 0]);
    let sent = world.now;
    world.pass(Duration::from_secs(1), 3);
    world.time.stop_leading(world.now);
    world.now += Duration::from_secs(1);
    world.time.start_leading(world.now);
    let from = world.read();
    for _ in 0..20 {
        world.now += BEAT;
        let exchange = Exchange {
            sent,
            received: world.now,
            wall_ms: world.wall(1),
        };
        world.time.record_reply(NodeId::new(2), exchange);
    }
    assert!(world.read() - from <= 550, "{}", world.read() - from);
}

/// Invariants 1 and 3.
#[test]
fn new_leader_continues_from_highest_observed_time() {
    let mut world = World::new(&[0, 0, 0], EPOCH_MS);
    world.time.observe(world.now, EPOCH_MS + 5_000);
    world.time.observe_entry(world.now, EPOCH_MS + 4_000);
    world.now += Duration::from_secs(60);
    assert_eq!(world.time.now(world.now), EPOCH_MS + 5_000, "nobody leads");
    world.time.start_leading(world.now);
    assert_eq!(world.time.now(world.now), EPOCH_MS + 5_000);
    // When the first beat is counted, two of the clocks are of long ago.
    world.pass(BEAT * 2, 3);
    assert_eq!(world.time.now(world.now), EPOCH_MS + 5_210, "at most a tenth faster");
}

#[test]
fn new_group_starts_at_median_clock() {
    let mut world = World::new(&[2 * HOUR_MS, 3, 0], 0);
    world.time.set_voters(nodes(0));
    assert_eq!(
        world.time.now(world.now),
        0,
        "what one voter's clock shows is told to nobody"
    );
    assert_eq!(world.time.time_for_entry(world.now), EPOCH_MS + 1_000_003);
    world.now += Duration::from_secs(20);
    world.time.start_leading(world.now);
    assert_eq!(world.ahead(), 3);
    let mut pair = World::new(&[2 * HOUR_MS, 0], 0);
    pair.time.start_leading(pair.now);
    assert_eq!(pair.ahead(), 0, "of two the earlier one: nothing ends early");
    let mut alone = World::new(&[9], 0);
    alone.time.start_leading(alone.now);
    assert_eq!(alone.ahead(), 9);
}

#[test]
fn entry_is_due_without_writes() {
    let mut world = World::leading(&[0, 0, 0]);
    assert!(!world.time.is_entry_due(world.now));
    world.pass(Duration::from_millis(9_900), 3);
    assert!(!world.time.is_entry_due(world.now));
    world.pass(BEAT, 3);
    assert!(world.time.is_entry_due(world.now));
    let now = world.time.now(world.now);
    world.time.observe_entry(world.now, now);
    assert!(!world.time.is_entry_due(world.now));
    world.time.stop_leading(world.now);
    world.now += Duration::from_secs(60);
    assert!(!world.time.is_entry_due(world.now), "only a leader's");
}

#[test]
fn distance_within_sample_error_raises_no_alarm() {
    let mut world = World::leading(&[0, 0, 0]);
    let now = world.now;
    for voter in [2, 3] {
        let exchange = Exchange {
            sent: now,
            received: now + Duration::from_millis(1_900),
            wall_ms: EPOCH_MS + 1_000_000,
        };
        world.time.record_reply(NodeId::new(voter), exchange);
    }
    world.now += Duration::from_millis(1_900);
    world.time.record_own_clock(world.now, world.wall(0));
    assert_eq!(world.notices(), []);
    world.wrong_ms[0] = 3_000;
    world.time.record_own_clock(world.now, world.wall(0));
    assert_eq!(world.notices().len(), 1);
}

#[test]
fn alarm_of_silent_voter_lasts_until_answer() {
    let mut world = World::leading(&[0, 0, 0, 60_000]);
    world.pass(BEAT, 4);
    assert_eq!(world.notices().len(), 1);
    world.pass(Duration::from_secs(10), 3);
    assert_eq!(world.notices(), []);
    world.time.set_voters(nodes(3));
    assert_eq!(world.notices(), [Notice::Ended(Alarm::Clock(NodeId::new(4)))]);
}

#[test]
fn extreme_times_do_not_overflow() {
    let mut world = World::leading(&[i64::MAX, i64::MAX, i64::MIN]);
    world.time.observe(world.now, u64::MAX);
    world.pass(Duration::from_secs(1), 3);
    assert_eq!(world.time.now(world.now), TIME_MS_MAX);
    assert!(world.time.report(world.now).is_some());
}

/// Events of a voter.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Clock(usize, i64),
    Answer(usize, u64),
    Hear(i64),
    Lead,
    Follow,
    Freeze(u64),
}

fn step(voters: usize) -> impl Strategy<Value = Step> {
    let clock = prop_oneof![-10 * HOUR_MS..10 * HOUR_MS, Just(0), any::<i64>()];
    prop_oneof![
        8 => (0..400_u64).prop_map(Step::Pass),
        2 => (0..voters, clock).prop_map(|(voter, wrong)| Step::Clock(voter, wrong)),
        8 => (1..voters.max(2), 0..300_u64).prop_map(|(voter, trip)| Step::Answer(voter, trip)),
        1 => (-10_000..10_000_i64).prop_map(Step::Hear),
        2 => Just(Step::Lead),
        1 => Just(Step::Follow),
        1 => (500..100_000_u64).prop_map(Step::Freeze),
    ]
}

fn history() -> impl Strategy<Value = (usize, Vec<Step>)> {
    (1..6_usize).prop_flat_map(|voters| (Just(voters), prop::collection::vec(step(voters), 1..150)))
}

proptest! {
    /// Invariants 1 and 2.
    #[test]
    fn logged_time_is_monotonic_and_rate_is_bounded((voters, steps) in history()) {
        let mut world = World::new(&vec![0; voters], EPOCH_MS + 1_000_000);
        // The latest time that there can be, in tenths of milliseconds.
        let mut latest = world.read() * 10;
        for step in steps {
            let (before, at) = (world.read(), world.now);
            match step {
                Step::Pass(millis) | Step::Freeze(millis) => world.now += Duration::from_millis(millis),
                Step::Clock(voter, wrong) => world.wrong_ms[voter] = wrong,
                Step::Answer(voter, trip) if voter < voters => {
                    let sent = world.now;
                    world.now += Duration::from_millis(trip);
                    let exchange = Exchange { sent, received: world.now, wall_ms: world.wall(voter) };
                    world.time.record_reply(NodeId::new(voter as u64 + 1), exchange);
                }
                Step::Answer(..) => {}
                Step::Hear(ahead) => {
                    let heard = before.saturating_add(ahead);
                    latest = latest.max(heard * 10);
                    world.time.observe(world.now, heard.unsigned_abs());
                }
                Step::Lead => world.time.start_leading(world.now),
                Step::Follow => world.time.stop_leading(world.now),
            }
            world.time.record_own_clock(world.now, world.wall(0));
            let passed = i64::try_from((world.now - at).as_millis()).unwrap();
            let after = world.read();
            latest += passed * 11;
            prop_assert!(after >= before);
            prop_assert!(after * 10 <= latest, "{} ms too far", after - latest / 10);
        }
    }

    /// Invariant 2.
    #[test]
    fn confirmed_time_advances_at_least_at_nine_tenths(
        wrong in prop::collection::vec(prop_oneof![any::<i64>(), -100_000..100_000_i64], 1..6),
        beats in 1..100_u32,
    ) {
        let mut world = World::leading(&wrong);
        let before = world.read();
        world.pass(BEAT * beats, wrong.len());
        let passed = i64::from(beats) * 100;
        let went = world.read() - before;
        prop_assert!((passed * 9 / 10 - 1..=passed * 11 / 10 + 1).contains(&went), "{went} of {passed}");
    }

    /// Invariant 4: fewer than half of the clocks, or half of them, are wrong in any way and at any time.
    #[test]
    fn wrong_clocks_of_half_the_voters_move_nothing(
        voters in 3..8_usize,
        leaps in prop::collection::vec((any::<prop::sample::Index>(), any::<i64>(), 1..30_u32), 1..20),
    ) {
        let mut world = World::leading(&vec![0; voters]);
        let wrong = voters / 2;
        for (which, leap, beats) in leaps {
            world.wrong_ms[which.index(wrong)] = leap;
            world.pass(BEAT * beats, voters);
            prop_assert_eq!(world.ahead(), 0);
        }
    }

    #[test]
    fn tenant_time_follows_rate_of_home(time in 0..1_u64 << 40, as_of in 0..1_u64 << 40, passed in 0..1_u64 << 40, more in 0..1_u64 << 20) {
        let first = tenant_time(time, as_of, as_of + passed);
        let went = first - time;
        prop_assert!(went >= passed - passed / 10 && went <= passed + passed / 10);
        let second = tenant_time(time, as_of, as_of + passed + more);
        prop_assert!(second >= first);
        let distance = |time: u64, group: u64| time.abs_diff(group);
        prop_assert!(distance(first, as_of + passed) <= distance(time, as_of));
        prop_assert!(distance(first, as_of + passed) >= distance(time, as_of).saturating_sub(passed / 10));
        let stepwise = tenant_time(first, as_of + passed, as_of + passed + more);
        prop_assert!(stepwise.abs_diff(second) <= 1, "in one step or in two");
        prop_assert_eq!(tenant_time(as_of, as_of, as_of + passed), as_of + passed);
        prop_assert_eq!(tenant_time(time, as_of, as_of.saturating_sub(more)), time, "a group's time goes back nowhere");
    }
}

proptest! {
    // Each passes many minutes.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn logged_time_converges_to_median(
        ahead in -60_000..60_000_i64,
        clocks in prop::collection::vec(-1_000..1_000_i64, 3..6),
    ) {
        let mut world = World::leading(&clocks);
        world.time = LoggedTime::new(
            NodeId::new(1),
            nodes(clocks.len() as u64),
            LIMITS,
            (EPOCH_MS + 1_000_000).saturating_add_signed(ahead),
        );
        world.time.start_leading(world.now);
        world.pass(Duration::from_secs(800), clocks.len());
        let mut sorted = clocks;
        sorted.sort_unstable();
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        let ahead = world.ahead();
        prop_assert!((low - 11..=high + 11).contains(&ahead), "{ahead} of {low} to {high}");
    }
}
