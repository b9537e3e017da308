//! Tests of the pace of seeds.

use super::*;

const MIB: u64 = 1 << 20;
const CAP: u64 = 256 * MIB;

/// A tenant that is copied over a link, in steps of a second.
struct Copying {
    size: u64,
    /// Bytes a second that the link takes, by the second.
    link: fn(u64) -> u64,
    /// Bytes a second that writers would write, by the second.
    writers: fn(u64) -> u64,
}

#[derive(Debug)]
struct Outcome {
    seconds: u64,
    /// `None`: the copy is complete.
    end: Option<SeedVerdict>,
    /// Least that writers got through, in percent of what they would have written.
    least_percent: u64,
    history: u64,
    /// Times to go, by the second.
    to_go: Vec<Option<Duration>>,
}

impl Copying {
    fn run(&self) -> Outcome {
        let mut pace = SeedPace::new(CAP);
        let mut sample = SeedSample {
            left: self.size,
            ..SeedSample::default()
        };
        let mut outcome = Outcome {
            seconds: 0,
            end: None,
            least_percent: 100,
            history: 0,
            to_go: Vec::new(),
        };
        let mut verdict = pace.observe(sample);
        for second in 1..100_000 {
            let link = (self.link)(second);
            let loaded = link.min(sample.left);
            let wanted = (self.writers)(second);
            let written = match verdict {
                SeedVerdict::Slow { bytes_per_second } => wanted.min(bytes_per_second),
                SeedVerdict::Free => wanted,
                SeedVerdict::End(_) | SeedVerdict::Release => unreachable!("it has ended"),
            };
            let percent = (written * 100).checked_div(wanted);
            outcome.least_percent = outcome.least_percent.min(percent.unwrap_or(100));
            sample.at += Duration::from_secs(1);
            sample.left -= loaded;
            sample.loaded += loaded;
            sample.caught_up += (link - loaded).min(backlog(&sample));
            sample.history += written;
            sample.requests += written;
            (outcome.seconds, outcome.history) = (second, sample.history);
            if sample.left == 0 && backlog(&sample) <= link {
                return outcome;
            }
            verdict = pace.observe(sample);
            outcome.to_go.push(pace.time_to_go());
            if matches!(verdict, SeedVerdict::End(_) | SeedVerdict::Release) {
                outcome.end = Some(verdict);
                return outcome;
            }
        }
        panic!("it goes on for ever: {outcome:?}");
    }
}

/// Field case c5.
#[test]
fn seed_within_the_cap_ends_without_slowing() {
    let copying = Copying {
        size: 512 * MIB,
        link: |_| 16 * MIB,
        writers: |_| 4 * MIB,
    };
    let outcome = copying.run();
    assert_eq!((&outcome.end, outcome.least_percent), (&None, 100), "{outcome:?}");
    assert!((40..=44).contains(&outcome.seconds), "{outcome:?}");
    let to_go: Vec<_> = outcome.to_go.iter().skip(1).map(|time| time.unwrap()).collect();
    assert!(to_go.is_sorted_by(|before, after| after <= before), "{to_go:?}");
}

/// Invariant 1: it would take 400 MiB of history without slowing.
#[test]
fn seed_beyond_the_cap_slows_writers_by_a_fifth_at_most() {
    let copying = Copying {
        size: 400 * MIB,
        link: |_| 10 * MIB,
        writers: |_| 5 * MIB,
    };
    let outcome = copying.run();
    assert_eq!(outcome.end, None, "{outcome:?}");
    assert!((WRITE_PERCENT_MIN..100).contains(&outcome.least_percent), "{outcome:?}");
    assert!(outcome.history < 400 * MIB, "{outcome:?}");
}

#[test]
fn seed_survives_a_cut_of_a_minute() {
    let copying = Copying {
        size: 1024 * MIB,
        link: |second| if (30..90).contains(&second) { 0 } else { 12 * MIB },
        writers: |_| MIB,
    };
    let outcome = copying.run();
    assert_eq!((&outcome.end, outcome.least_percent), (&None, 100), "{outcome:?}");
}

/// It ends at the cap, and nobody is slowed for it.
#[test]
fn writers_faster_than_the_link_end_the_seed_with_figures() {
    let copying = Copying {
        size: 1024 * MIB,
        link: |_| 6 * MIB,
        writers: |_| 12 * MIB,
    };
    let outcome = copying.run();
    let Some(SeedVerdict::End(failure)) = outcome.end else {
        panic!("{outcome:?}")
    };
    assert_eq!(failure.reason, SeedFailureReason::CannotCatchUp);
    assert_eq!((failure.copy_rate, failure.history_max), (6 * MIB, CAP));
    assert_eq!(outcome.least_percent, 100, "{outcome:?}");
    assert!(
        outcome.history > CAP && outcome.history <= CAP + 12 * MIB,
        "{outcome:?}"
    );
    let text = failure.to_string();
    assert!(text.contains("takes in 6291456 bytes a second"), "{text}");
}

/// Invariant 3: the copy keeps up, and gets no nearer.
#[test]
fn backlog_that_does_not_shrink_ends_the_seed() {
    let copying = Copying {
        size: 100 * MIB,
        link: |_| 10 * MIB,
        writers: |second| if second < 10 { 2 * MIB } else { 14 * MIB },
    };
    let outcome = copying.run();
    assert!(matches!(outcome.end, Some(SeedVerdict::End(_))), "{outcome:?}");
    assert!(outcome.history <= 2 * CAP + 14 * MIB, "{outcome:?}");
}

#[test]
fn load_that_begins_late_is_measured_by_itself() {
    let copying = Copying {
        size: 1024 * MIB,
        link: |_| 16 * MIB,
        writers: |second| if second < 20 { 0 } else { 6 * MIB },
    };
    let outcome = copying.run();
    assert_eq!(outcome.end, None, "{outcome:?}");
    assert!(outcome.least_percent >= 50, "{outcome:?}");
}

#[test]
fn stalled_copy_beyond_the_cap_slows_nobody_and_ends() {
    let copying = Copying {
        size: 1024 * MIB,
        link: |second| if second < 10 { 16 * MIB } else { 0 },
        writers: |_| 8 * MIB,
    };
    let outcome = copying.run();
    let Some(SeedVerdict::End(failure)) = outcome.end else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (failure.reason, outcome.least_percent),
        (SeedFailureReason::Stalled, 100)
    );
    assert!(failure.history > CAP && failure.history <= CAP + 8 * MIB, "{outcome:?}");
}

/// Invariant 2.
#[test]
fn stalled_copy_within_the_cap_waits_until_it_is_released() {
    let copying = Copying {
        size: MIB,
        link: |_| 0,
        writers: |_| 1_000,
    };
    let outcome = copying.run();
    assert_eq!(outcome.end, Some(SeedVerdict::Release));
    assert_eq!(outcome.seconds, RELEASED_AFTER.as_secs());
}

#[test]
fn time_to_go_counts_what_is_written_meanwhile() {
    assert_eq!(time_to_go(0, 0, 0, 9), Some(Duration::ZERO));
    assert_eq!(time_to_go(100, 0, 10, 0), Some(Duration::from_secs(10)));
    assert_eq!(time_to_go(100, 20, 10, 4), Some(Duration::from_secs(20)));
    assert_eq!(time_to_go(1, 0, 10, 10), None);
}
