//! Engine wrapper whose errors and panics stop the node.
//!
//! A row that one replica cannot read another one can, and a batch that could not be written or synced is in an unknown
//! state: so every error of an engine is final, in any call. Libraries panic on conditions that they consider
//! impossible, such as damaged files: such a panic is an error like any other.
//!
//! Damaged rows are rebuilt after the node has stopped, whether a read or the engine's own threads met the damage; rows
//! that the system failed to read are left as they are.
//!
//! While a node starts, a failed read does not stop it: the error goes to the caller, who can set the rows aside.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use stead_state::rows::{Order, Row, Unreadable};

use super::{Engine, Kind, RowChange, is_damage, unreadable};
use crate::health::{Health, NodeFailure, Rebuild, catch_panic};

const READING: &str = "reading rows";

/// Wraps an engine so that its errors stop the node.
pub fn guarded(engine: Arc<dyn Engine>, health: Health) -> Arc<dyn Engine> {
    let engine = guarded_once_opened(engine, health);
    engine.mark_opened();
    engine
}

/// Wraps an engine so that its errors stop the node, those of reads only after [`Engine::mark_opened`].
pub fn guarded_once_opened(engine: Arc<dyn Engine>, health: Health) -> Arc<dyn Engine> {
    Arc::new(GuardedEngine {
        engine,
        health,
        is_opened: AtomicBool::new(false),
    })
}

struct GuardedEngine {
    engine: Arc<dyn Engine>,
    health: Health,
    is_opened: AtomicBool,
}

impl GuardedEngine {
    /// Runs a read; an error or a panic stops the node, unless the node is still starting.
    fn read<T>(&self, read: impl FnOnce() -> Result<T, Unreadable>) -> Result<T, Unreadable> {
        let read = catch_panic(read).unwrap_or_else(|panicked| Err(unreadable(panicked)));
        read.map_err(|Unreadable(source)| {
            if !self.is_opened.load(Ordering::Acquire) {
                return Unreadable(source);
            }
            let rebuild = is_damage(&*source).then_some(Rebuild { target: None });
            let failure = NodeFailure {
                rebuild,
                ..NodeFailure::of_node(READING, source)
            };
            unreadable(self.health.fail(failure))
        })
    }

    fn write(&self, doing: &'static str, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.health.check()?;
        let written = catch_panic(write).unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        written.map_err(|error| {
            // The engine's own threads end at damage without reporting it.
            let is_damaged = is_damage(&error) && self.has_damaged_rows();
            let failure = NodeFailure {
                rebuild: is_damaged.then_some(Rebuild { target: None }),
                ..NodeFailure::of_node(doing, error)
            };
            self.health.fail(failure).into()
        })
    }

    /// Tells whether there are rows that cannot be read because their files are damaged. It reads all rows.
    fn has_damaged_rows(&self) -> bool {
        let all: Range<&[u8]> = &[]..&[u8::MAX];
        let first_error = || self.engine.range(all, Order::Ascending).find_map(Result::err);
        match catch_panic(first_error) {
            Ok(None) => false,
            Ok(Some(Unreadable(source))) => is_damage(&*source),
            Err(_panicked) => true,
        }
    }
}

impl Engine for GuardedEngine {
    fn kind(&self) -> Kind {
        self.engine.kind()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        self.read(|| self.engine.get(key))
    }

    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
        let opened = self.read(|| Ok(self.engine.range(range, order)));
        match opened {
            Ok(rows) => Box::new(Rows {
                rows: Some(rows),
                engine: self,
            }),
            Err(unreadable) => Box::new(std::iter::once(Err(unreadable))),
        }
    }

    fn write(&self, batch: &mut dyn Iterator<Item = RowChange>) -> io::Result<()> {
        self.write("writing rows", || {
            self.engine.check_workers()?;
            self.engine.write(batch)
        })
    }

    fn checkpoint(&self) -> io::Result<()> {
        self.write("syncing rows", || {
            self.engine.check_workers()?;
            self.engine.checkpoint()
        })
    }

    fn check_workers(&self) -> io::Result<()> {
        self.write("compacting rows", || self.engine.check_workers())
    }

    fn reclaim(&self) -> io::Result<()> {
        self.write("freeing disk space", || self.engine.reclaim())
    }

    fn mark_opened(&self) {
        self.is_opened.store(true, Ordering::Release);
    }

    fn disk_len(&self) -> u64 {
        // A metric only.
        catch_panic(|| self.engine.disk_len()).unwrap_or_default()
    }

    fn disk_free(&self) -> Option<u64> {
        self.engine.disk_free()
    }
}

/// Rows of a range, until one cannot be read.
struct Rows<'a> {
    rows: Option<Box<dyn Iterator<Item = Row> + 'a>>,
    engine: &'a GuardedEngine,
}

impl Iterator for Rows<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let rows = self.rows.as_mut()?;
        let next = self.engine.read(|| rows.next().transpose());
        if next.is_err() {
            self.rows = None;
        }
        next.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::{Disk, DiskOperation};
    use super::*;

    /// Engine that panics at every call.
    struct PanickingEngine;

    impl Engine for PanickingEngine {
        fn kind(&self) -> Kind {
            Kind::Memory
        }

        fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
            panic!("a damaged file")
        }

        fn range<'a>(&'a self, _range: Range<&[u8]>, _order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
            Box::new(std::iter::from_fn(|| panic!("a damaged file")))
        }

        fn write(&self, _batch: &mut dyn Iterator<Item = RowChange>) -> io::Result<()> {
            panic!("a damaged file")
        }

        fn checkpoint(&self) -> io::Result<()> {
            panic!("a damaged file")
        }

        fn disk_len(&self) -> u64 {
            panic!("a damaged file")
        }
    }

    #[test]
    fn panicking_engine_returns_error_and_stops_the_node() {
        let calls: [fn(&dyn Engine) -> bool; 5] = [
            |engine| engine.get(b"k").is_err(),
            |engine| {
                engine
                    .range(b"a".as_slice()..b"z".as_slice(), Order::Ascending)
                    .all(|row| row.is_err())
            },
            |engine| engine.write(&mut std::iter::empty()).is_err(),
            |engine| engine.checkpoint().is_err(),
            |engine| engine.disk_len() == 0,
        ];
        for (number, call) in calls.iter().enumerate() {
            let health = Health::default();
            assert!(call(&*guarded(Arc::new(PanickingEngine), health.clone())));
            let reason = health.failure().map(|failure| failure.source.to_string());
            let expected = (number < 4).then(|| "panic: a damaged file".to_owned());
            assert_eq!(reason, expected, "call {number}");
        }
    }

    #[test]
    fn damage_requests_rebuild_and_system_errors_do_not() {
        /// Engine whose reads fail.
        struct UnreadableEngine(fn() -> io::Error);

        impl Engine for UnreadableEngine {
            fn kind(&self) -> Kind {
                Kind::Memory
            }

            fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
                Err(unreadable((self.0)()))
            }

            fn range<'a>(&'a self, _range: Range<&[u8]>, _order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
                Box::new(std::iter::once(Err(unreadable((self.0)()))))
            }

            fn write(&self, _batch: &mut dyn Iterator<Item = RowChange>) -> io::Result<()> {
                Ok(())
            }

            fn checkpoint(&self) -> io::Result<()> {
                Ok(())
            }

            fn check_workers(&self) -> io::Result<()> {
                Err(io::Error::other("compaction has ended"))
            }

            fn disk_len(&self) -> u64 {
                0
            }
        }

        let damage = || io::Error::other("checksum mismatch");
        let refusal = || io::Error::from_raw_os_error(libc::EIO);
        let reads: [fn(&dyn Engine) -> bool; 3] = [
            |engine| engine.get(b"k").is_err(),
            |engine| engine.check_workers().is_err(),
            |engine| engine.range(b"a"..b"z", Order::Ascending).all(|row| row.is_err()),
        ];
        for read in reads {
            for (error, is_damage) in [(damage as fn() -> io::Error, true), (refusal, false)] {
                let health = Health::default();
                assert!(read(&*guarded(Arc::new(UnreadableEngine(error)), health.clone())));
                let rebuild = health.failure().unwrap().rebuild;
                assert_eq!(rebuild, is_damage.then_some(Rebuild { target: None }));
            }
        }
    }

    #[test]
    fn failed_read_stops_the_node() {
        let disk = Disk::default();
        let health = Health::default();
        let engine = disk.open_with(health.clone());
        disk.fail_once(DiskOperation::Read, 0);
        engine.get(b"k").unwrap_err();
        assert_eq!(
            health.failure().unwrap().to_string(),
            "the node failed while reading rows"
        );
        engine.write(&mut std::iter::empty()).unwrap_err();
    }
}
