//! Timing of Raft: heartbeat interval and election timeout by the distance of a group's voters.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use stead_state::logged_time::Limits;
use stead_types::{GroupId, Incarnation};

/// Distance of the voters of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// In one region: round trips of a few milliseconds. A dead leader is replaced in less than a second.
    Region,
    /// In several regions.
    Wide {
        /// Longest round trip between two voters. With a heartbeat interval shorter than a round trip no heartbeat
        /// would count as acknowledged, and the group would reject every write.
        rtt_ms_max: u32,
    },
}

/// Election timeouts of silence after which a group is disconnected: Raft itself keeps naming a silent leader, because
/// a vote without responses changes nothing.
const SILENCE_ELECTIONS: u32 = 4;

/// Periods of a timing, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Periods {
    heartbeat: u64,
    heartbeat_min: u64,
    election_min: u64,
    election_max: u64,
}

const WIDE_HEARTBEAT_MS_MIN: u64 = 500;
/// Tolerated stall of a follower in a heartbeat, beyond two round trips.
const STALL_MS: u64 = 50;

impl Timing {
    pub(crate) fn periods(self) -> Periods {
        match self {
            Self::Region => Periods {
                heartbeat: 100,
                heartbeat_min: 80,
                election_min: 250,
                election_max: 500,
            },
            Self::Wide { rtt_ms_max } => {
                let heartbeat = (2 * u64::from(rtt_ms_max) + STALL_MS).max(WIDE_HEARTBEAT_MS_MIN);
                Periods {
                    heartbeat,
                    heartbeat_min: 0,
                    election_min: 5 * heartbeat,
                    election_max: 8 * heartbeat,
                }
            }
        }
    }
}

impl Periods {
    /// Returns the heartbeat interval.
    pub(crate) fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat)
    }

    /// Returns the longest election timeout, which is also the length of a leader's lease.
    pub(crate) fn election_max(&self) -> Duration {
        Duration::from_millis(self.election_max)
    }

    /// Returns the limits of logged time: how long confirmations and clock samples of voters count.
    pub(crate) fn clock_limits(&self) -> Limits {
        Limits {
            confirmed_for: self.election_max(),
            answered_for: self.silence_max(),
        }
    }

    /// Returns the silence after which a group is disconnected.
    pub(crate) fn silence_max(&self) -> Duration {
        SILENCE_ELECTIONS * self.election_max()
    }

    /// Returns openraft's configuration.
    pub(crate) fn config(&self, group: GroupId, incarnation: Incarnation) -> Arc<Config> {
        let config = Config {
            cluster_name: format!("{group}-{}", incarnation.0),
            heartbeat_interval: self.heartbeat,
            heartbeat_min_interval: Some(self.heartbeat_min),
            election_timeout_min: self.election_min,
            election_timeout_max: self.election_max,
            enable_pre_vote: Some(true),
            // A leader that restarted quickly would continue without an election, with a state that may be behind.
            enable_leader_restore: Some(false),
            // The bound that counts is the one in bytes, in the log reader.
            max_payload_entries: 4096,
            max_append_entries: Some(4096),
            broadcast_submitted_on_append: Some(true),
            // Checkpoints and purging are scheduled by bytes, in `log_compaction`.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX / 2,
            purge_batch_size: 1,
            install_snapshot_timeout: 10_000,
            backoff: "50ms 100ms 200ms ...1s".into(),
            ..Config::default()
        };
        Arc::new(config.validate().expect("every timing keeps openraft's rules"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_valid_and_heartbeats_exceed_two_round_trips() {
        let group = GroupId::new(1);
        let first = Incarnation::FIRST;
        drop(Timing::Region.periods().config(group, first));
        for rtt_ms_max in [0, 10, 150, 300, 2_000] {
            let periods = Timing::Wide { rtt_ms_max }.periods();
            drop(periods.config(group, first));
            assert!(periods.heartbeat >= 2 * u64::from(rtt_ms_max) + STALL_MS);
        }
    }
}
