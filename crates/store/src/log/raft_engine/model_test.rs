//! Model test of the log on disk against the one in memory: the same calls, and reopening, must leave the same log.

use bytes::Bytes;
use proptest::prelude::*;

use super::super::conformance::{record, wait};
use super::super::{GroupLog, memory};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    /// Drop so many records, perhaps all.
    Truncate(u64),
    /// Purge up to so many records from the first, perhaps beyond the last.
    Purge(u64),
    Vote(u8),
    Committed(u8),
    Erase,
    Reopen,
    /// Do the purge thread's work now.
    PurgeFiles,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..30u64).prop_map(Step::Append),
        3 => (0..40u64).prop_map(Step::Truncate),
        3 => (0..60u64).prop_map(Step::Purge),
        1 => any::<u8>().prop_map(Step::Vote),
        1 => any::<u8>().prop_map(Step::Committed),
        1 => Just(Step::Erase),
        3 => Just(Step::Reopen),
        2 => Just(Step::PurgeFiles),
    ]
}

const GROUP: GroupId = GroupId::new(5);

const OPTIONS: Options = Options {
    file_len: 2 << 10,
    purge_len: 4 << 10,
    prefill_len: 0,
};

fn change(log: &Arc<dyn GroupLog>, step: &Step, text: &str) {
    let state = log.state().unwrap();
    let purged_next = state.purged.map_or(0, |purged| purged.index + 1);
    let next = state.last.map_or(purged_next, |last| last.index + 1);
    match step {
        Step::Append(count) => {
            let records = (next..next + count).map(|index| record(index, text)).collect();
            wait(|done| log.append(records, done)).unwrap();
        }
        Step::Truncate(count) => log.truncate_after(next.saturating_sub(*count).checked_sub(1)).unwrap(),
        Step::Purge(count) => log.purge(purged_next + count, Bytes::from("id")).unwrap(),
        Step::Vote(vote) => wait(|done| log.save_vote(vec![*vote].into(), done)).unwrap(),
        Step::Committed(committed) => log.save_committed(vec![*committed].into()).unwrap(),
        Step::Erase | Step::Reopen | Step::PurgeFiles => {}
    }
}

fn run(steps: &[Step]) {
    let dir = tempfile::tempdir().unwrap();
    let model = memory::Disk::default().open();
    let mut logs = open_parts(dir.path(), &OPTIONS, SyncFault::default(), Health::default()).unwrap();
    for (number, step) in steps.iter().enumerate() {
        let text = format!("{number}-");
        change(&model.group(GROUP), step, &text);
        change(&logs.group(GROUP), step, &text);
        match step {
            Step::Erase => {
                wait(|done| model.erase(GROUP, done)).unwrap();
                wait(|done| logs.erase(GROUP, done)).unwrap();
            }
            Step::Reopen => {
                drop(logs);
                logs = open_parts(dir.path(), &OPTIONS, SyncFault::default(), Health::default()).unwrap();
            }
            Step::PurgeFiles => drop(logs.threads.parts.engine.purge_expired_files().unwrap()),
            Step::Append(_) | Step::Truncate(_) | Step::Purge(_) | Step::Vote(_) | Step::Committed(_) => {}
        }
        let (log, model) = (logs.group(GROUP), model.group(GROUP));
        assert_eq!(log.state().unwrap(), model.state().unwrap(), "after {number}: {step:?}");
        let all = 0..u64::MAX;
        assert_eq!(
            log.read(all.clone(), usize::MAX).unwrap(),
            model.read(all, usize::MAX).unwrap()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn disk_log_equals_memory_log(steps in proptest::collection::vec(step(), 1..40)) {
        run(&steps);
    }
}
