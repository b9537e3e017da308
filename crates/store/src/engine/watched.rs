//! An engine whose errors and panics stop the node.
//!
//! What one replica cannot read another one can, and what could not be written or synced is in an unknown state: so
//! every error of an engine is final, whoever it happens to. Libraries panic where they meet what they hold for
//! impossible, such as damaged files: that is an error here like any other.
//!
//! Rows that are damaged are rebuilt when the node has ended, whoever met the damage: a read, or the engine's own threads.
//! Those that the system would not read are left as they are.
//!
//! While a node starts, its rows are on trial: what cannot be read is told to whoever reads, who can set the rows aside.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use stead_state::rows::{Order, Row, Unreadable};

use super::{Change, Engine, Kind, is_damage, unreadable};
use crate::health::{Failure, Health, Rebuild, caught};

const READING: &str = "reading rows";

/// Returns an engine as a node uses it: with the node's health.
pub fn watched(engine: Arc<dyn Engine>, health: Health) -> Arc<dyn Engine> {
    let engine = on_trial(engine, health);
    engine.opened();
    engine
}

/// Returns an engine as a node uses it, whose reads do not stop the node before [`Engine::opened`].
pub fn on_trial(engine: Arc<dyn Engine>, health: Health) -> Arc<dyn Engine> {
    Arc::new(Watched {
        engine,
        health,
        is_opened: AtomicBool::new(false),
    })
}

struct Watched {
    engine: Arc<dyn Engine>,
    health: Health,
    is_opened: AtomicBool,
}

impl Watched {
    /// Reads; an error or a panic stops the node, unless the rows are on trial.
    fn read<T>(&self, read: impl FnOnce() -> Result<T, Unreadable>) -> Result<T, Unreadable> {
        let read = caught(read).unwrap_or_else(|panicked| Err(unreadable(panicked)));
        read.map_err(|Unreadable(source)| {
            if !self.is_opened.load(Ordering::Acquire) {
                return Unreadable(source);
            }
            let rebuild = is_damage(&*source).then_some(Rebuild { reaching: None });
            let failure = Failure {
                rebuild,
                ..Failure::of_node(READING, source)
            };
            unreadable(self.health.fail(failure))
        })
    }

    fn write(&self, doing: &'static str, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.health.check()?;
        let written = caught(write).unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        written.map_err(|error| {
            // The engine's own threads end where they meet damage, and do not tell.
            let is_damaged = is_damage(&error) && self.is_damaged();
            let failure = Failure {
                rebuild: is_damaged.then_some(Rebuild { reaching: None }),
                ..Failure::of_node(doing, error)
            };
            self.health.fail(failure).into()
        })
    }

    /// Tells whether there are rows that cannot be read for what stands in their files. It reads them all.
    fn is_damaged(&self) -> bool {
        let all: Range<&[u8]> = &[]..&[u8::MAX];
        let unread = || self.engine.range(all, Order::Ascending).find_map(Result::err);
        match caught(unread) {
            Ok(None) => false,
            Ok(Some(Unreadable(source))) => is_damage(&*source),
            Err(_panicked) => true,
        }
    }
}

impl Engine for Watched {
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

    fn write(&self, batch: &mut dyn Iterator<Item = Change>) -> io::Result<()> {
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

    fn opened(&self) {
        self.is_opened.store(true, Ordering::Release);
    }

    fn disk_len(&self) -> u64 {
        // It is only shown.
        caught(|| self.engine.disk_len()).unwrap_or_default()
    }
}

/// The rows of a range, until one cannot be read.
struct Rows<'a> {
    rows: Option<Box<dyn Iterator<Item = Row> + 'a>>,
    engine: &'a Watched,
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
    use super::super::memory::{Disk, Operation};
    use super::*;

    /// Panics at every call.
    struct Panicking;

    impl Engine for Panicking {
        fn kind(&self) -> Kind {
            Kind::Memory
        }

        fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
            panic!("a damaged file")
        }

        fn range<'a>(&'a self, _range: Range<&[u8]>, _order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
            Box::new(std::iter::from_fn(|| panic!("a damaged file")))
        }

        fn write(&self, _batch: &mut dyn Iterator<Item = Change>) -> io::Result<()> {
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
    fn panic_of_an_engine_is_an_error_that_stops_the_node() {
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
            assert!(call(&*watched(Arc::new(Panicking), health.clone())));
            let reason = health.failure().map(|failure| failure.source.to_string());
            let expected = (number < 4).then(|| "panic: a damaged file".to_owned());
            assert_eq!(reason, expected, "call {number}");
        }
    }

    #[test]
    fn rows_are_rebuilt_where_they_are_damaged_and_not_where_the_system_refuses() {
        /// Cannot be read.
        struct Unread(fn() -> io::Error);

        impl Engine for Unread {
            fn kind(&self) -> Kind {
                Kind::Memory
            }

            fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
                Err(unreadable((self.0)()))
            }

            fn range<'a>(&'a self, _range: Range<&[u8]>, _order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
                Box::new(std::iter::once(Err(unreadable((self.0)()))))
            }

            fn write(&self, _batch: &mut dyn Iterator<Item = Change>) -> io::Result<()> {
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
                assert!(read(&*watched(Arc::new(Unread(error)), health.clone())));
                let rebuild = health.failure().unwrap().rebuild;
                assert_eq!(rebuild, is_damage.then_some(Rebuild { reaching: None }));
            }
        }
    }

    #[test]
    fn failed_read_stops_the_node() {
        let disk = Disk::default();
        let health = Health::default();
        let engine = disk.open_with(health.clone());
        disk.fail_once(Operation::Read, 0);
        engine.get(b"k").unwrap_err();
        assert_eq!(
            health.failure().unwrap().to_string(),
            "the node failed while reading rows"
        );
        engine.write(&mut std::iter::empty()).unwrap_err();
    }
}
