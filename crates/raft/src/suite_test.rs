//! openraft's test suite for log stores and machines, over both logs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use stead_store::health::Health;
use stead_store::log::raft_engine::{Options, SyncFault};
use stead_store::log::{LogStore, memory, raft_engine};
use stead_types::GroupId;
use tokio::sync::watch;

use crate::blocking::{BlockingMode, BlockingWorker};
use crate::clock::GroupClock;
use crate::command_results::apply_entries;
use crate::log::Log;
use crate::log_size::LogSize;
use crate::machine::StateMachine;
use crate::types::TypeConfig;

#[expect(unreachable_pub, dead_code, reason = "shared with the tests of clusters")]
#[path = "../tests/raft/toy.rs"]
mod toy;

use toy::Toy;

const GROUP: GroupId = GroupId::new(3);

fn machine() -> StateMachine {
    let toy = Toy::open(&toy::Disk::default());
    StateMachine {
        clock: Arc::new(GroupClock::fixed()),
        group: GROUP,
        apply: apply_entries(toy.clone(), Arc::default()),
        machine: toy,
        worker: BlockingWorker {
            blocking: BlockingMode::Inline,
            group: GROUP,
            health: Health::default(),
        },
        applied: watch::Sender::new(0),
        is_running: Arc::new(AtomicBool::new(true)),
    }
}

struct Memory;

impl StoreBuilder<TypeConfig, Log, StateMachine, Arc<dyn LogStore>> for Memory {
    async fn build(&self) -> Result<(Arc<dyn LogStore>, Log, StateMachine), StorageError<TypeConfig>> {
        let store = memory::Disk::default().open();
        let log = Log::new(
            store.group(GROUP),
            Arc::new(LogSize::with_tail(64 << 20)),
            Arc::new(GroupClock::fixed()),
        );
        Ok((store, log, machine()))
    }
}

#[tokio::test]
async fn memory_log_passes_openraft_suite() {
    Suite::test_all(Memory).await.unwrap();
}

struct OnDisk;

type Guard = (tempfile::TempDir, Arc<dyn LogStore>);

impl StoreBuilder<TypeConfig, Log, StateMachine, Guard> for OnDisk {
    async fn build(&self) -> Result<(Guard, Log, StateMachine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            prefill_len: 0,
            ..Options::SMALL
        };
        let store = raft_engine::open(folder.path(), &options, SyncFault::default(), Health::default()).unwrap();
        let log = Log::new(
            store.group(GROUP),
            Arc::new(LogSize::with_tail(64 << 20)),
            Arc::new(GroupClock::fixed()),
        );
        Ok(((folder, store), log, machine()))
    }
}

#[tokio::test]
async fn disk_log_passes_openraft_suite() {
    Suite::test_all(OnDisk).await.unwrap();
}
