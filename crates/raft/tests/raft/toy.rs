//! Toy machine for tests: a map, whose checkpoint is a copy.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use stead_state::codec::Entry;
use stead_store::digests::StateDigest;
use stead_store::machine::{AppliedState, Chunks, CommittedEntry, Machine, MachineError, Payload, Snapshot};

/// Disk of the toy: the state that survives its node.
pub type Disk = Arc<Mutex<State>>;

#[derive(Clone, Default)]
pub struct State {
    pub applied: AppliedState,
    pub map: BTreeMap<String, String>,
    /// Logged times of all entries, in their order.
    pub times: Vec<u64>,
}

pub struct Toy {
    pub state: Mutex<State>,
    pub disk: Disk,
    pub fail: Mutex<Option<&'static str>>,
    /// Like `fail`, with a panic.
    pub panic: Mutex<Option<&'static str>>,
    pub checkpoints: Mutex<u32>,
    /// After each entry.
    pub digests: Mutex<Vec<StateDigest>>,
}

/// Key that makes a snapshot impossible to install.
pub const UNREADABLE_KEY: &str = "unreadable";

/// Returns the command that sets a key.
pub fn put(key: &str, value: &str) -> Bytes {
    format!("\x01{key}={value}").into()
}

impl Toy {
    pub fn open(disk: &Disk) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(disk.lock().unwrap().clone()),
            disk: disk.clone(),
            fail: Mutex::default(),
            panic: Mutex::default(),
            checkpoints: Mutex::default(),
            digests: Mutex::default(),
        })
    }

    pub fn get(&self, key: &str) -> Option<String> {
        self.state.lock().unwrap().map.get(key).cloned()
    }

    fn check(&self, doing: &'static str) -> Result<(), MachineError> {
        let panics = *self.panic.lock().unwrap() == Some(doing);
        assert!(!panics, "on purpose");
        if *self.fail.lock().unwrap() == Some(doing) {
            let source = "asked to".into();
            return Err(MachineError { doing, source });
        }
        Ok(())
    }
}

impl Machine for Toy {
    /// Tells the key and the index of the entry.
    type CommandResult = String;

    fn applied(&self) -> AppliedState {
        self.state.lock().unwrap().applied.clone()
    }

    fn durable(&self) -> AppliedState {
        self.disk.lock().unwrap().applied.clone()
    }

    fn apply(&self, entries: Vec<CommittedEntry>) -> Result<Vec<Vec<String>>, MachineError> {
        self.check("applying")?;
        let mut state = self.state.lock().unwrap();
        let mut answers = Vec::new();
        for entry in entries {
            assert!(entry.index > state.applied.index, "every entry is applied once");
            state.applied.index = entry.index;
            state.applied.log_id = entry.log_id;
            let mut answered = Vec::new();
            match entry.payload {
                Payload::Blank => {}
                Payload::Membership(membership) => state.applied.membership = membership,
                Payload::Commands(commands) => {
                    let parsed = Entry::parse(commands).unwrap();
                    state.applied.time = parsed.time;
                    state.times.push(parsed.time);
                    for (_, body) in parsed.commands {
                        let text = String::from_utf8(body.to_vec()).unwrap();
                        let (key, value) = text.split_once('=').unwrap();
                        state.map.insert(key.to_owned(), value.to_owned());
                        answered.push(format!("{key} at {}", entry.index));
                    }
                }
            }
            answers.push(answered);
            let mut hasher = DefaultHasher::new();
            state.map.hash(&mut hasher);
            self.digests.lock().unwrap().push(StateDigest {
                index: entry.index,
                digest: hasher.finish().into(),
            });
        }
        Ok(answers)
    }

    fn checkpoint(&self) -> Result<(), MachineError> {
        self.check("checkpointing")?;
        *self.checkpoints.lock().unwrap() += 1;
        *self.disk.lock().unwrap() = self.state.lock().unwrap().clone();
        Ok(())
    }

    fn snapshot(&self) -> Result<Snapshot, MachineError> {
        let state = self.state.lock().unwrap().clone();
        let chunks: Vec<Bytes> = state.map.iter().map(|(key, value)| put(key, value)).collect();
        let chunks: Chunks = Box::new(chunks.into_iter().map(Ok));
        Ok(Snapshot {
            applied: state.applied,
            chunks,
        })
    }

    fn digests(&self) -> Vec<StateDigest> {
        self.digests.lock().unwrap().clone()
    }

    fn install(&self, snapshot: Snapshot) -> Result<(), MachineError> {
        let mut state = State {
            applied: snapshot.applied,
            ..State::default()
        };
        for chunk in snapshot.chunks {
            let text = String::from_utf8(chunk?[1..].to_vec()).unwrap();
            let (key, value) = text.split_once('=').unwrap();
            if key == UNREADABLE_KEY {
                let (doing, source) = ("installing", "it cannot be read".into());
                return Err(MachineError { doing, source });
            }
            state.map.insert(key.to_owned(), value.to_owned());
        }
        *self.disk.lock().unwrap() = state.clone();
        *self.state.lock().unwrap() = state;
        Ok(())
    }
}
