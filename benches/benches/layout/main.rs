//! CPU cost of a put below the Raft log, of the whole process, compaction and checkpoints included.
//!
//! `cargo bench -p stead-benches --bench layout [-- ENGINE PUTS]` prints a table in Markdown; `docs/layout.md` keeps
//! one and draws conclusions. Two layouts are compared, both with 40-byte keys and 256-byte values, in batches of 256
//! through group rows, over a fresh directory:
//!
//! * **pointer**: a small CURRENT row that names the CHANGE row with the value;
//! * **moved**: the value in CURRENT, moved to a row of its version when it is overwritten; CHANGE only names the key.

mod layouts;
mod measure;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use layouts::{Layout, MovedLayout, PointerLayout, Put};
use measure::{Figures, Measurement};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stead_store::background::{Background, Stagger};
use stead_store::engine::{self, Engine, Kind};
use stead_store::group_rows::GroupRows;
use stead_store::health::Health;
use stead_types::GroupId;

const BATCH: u64 = 256;
/// Default number of puts of each phase.
const PUTS: u64 = 500_000;
/// Number of keys that take all writes of the hot phase.
const HOT_KEYS: u64 = 20_000;
/// Number of changes that are retained after they were overwritten.
const HISTORY: u64 = 100_000;

/// Pattern of the keys that a phase writes.
#[derive(Clone, Copy)]
enum KeyPattern {
    /// Each key once, in random order.
    New,
    /// All keys, uniformly.
    Spread,
    /// A few of the keys.
    Hot,
}

impl KeyPattern {
    const ALL: [Self; 3] = [Self::New, Self::Spread, Self::Hot];

    fn name(self) -> &'static str {
        match self {
            Self::New => "new, spread",
            Self::Spread => "overwritten, spread",
            Self::Hot => "overwritten, hot",
        }
    }

    /// Returns the key of the n-th put. The number of keys is a power of two, so that an odd factor visits each once.
    fn pick(self, n: u64, keys: u64, random: &mut StdRng) -> u64 {
        match self {
            Self::New => n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys,
            Self::Spread => random.random_range(0..keys),
            Self::Hot => random.random_range(0..HOT_KEYS.min(keys)),
        }
    }
}

fn open(kind: Kind, dir: &Path) -> Result<Arc<dyn Engine>> {
    Ok(match kind {
        Kind::Fjall => engine::fjall::open(dir)?,
        Kind::Sled => engine::sled::open(dir)?,
        Kind::Memory => engine::memory::Disk::default().open(),
    })
}

fn run(kind: Kind, layout: &dyn Layout, puts: u64) -> Result<Vec<Figures>> {
    let dir = tempfile::tempdir()?;
    let engine = open(kind, dir.path())?;
    let background = Arc::new(Background::thread(
        "checkpoints",
        Health::default(),
        Stagger::default(),
    )?);
    let rows = GroupRows::open(engine.clone(), background, GroupId::new(1), |_, _| Ok(()))?;
    let keys = puts.next_power_of_two();
    let mut random = StdRng::seed_from_u64(1);
    let mut sequence: u64 = 0;
    let mut figures = Vec::new();
    for phase in KeyPattern::ALL {
        let total = match phase {
            KeyPattern::New => keys,
            KeyPattern::Spread | KeyPattern::Hot => puts,
        };
        let mut measurement = Measurement::start();
        for batch in 0..total / BATCH {
            let mut inner = rows.change()?;
            for n in batch * BATCH..(batch + 1) * BATCH {
                sequence += 1;
                let key = phase.pick(n, keys, &mut random);
                let floor = sequence.saturating_sub(HISTORY);
                layout.put(&mut inner.table, &Put::new(key, sequence, floor))?;
            }
            inner.applied.index += 1;
            inner.commit();
            rows.checkpoint_if_due()?;
            measurement.lap();
        }
        rows.checkpoint()?;
        figures.push(measurement.stop(phase.name(), total, engine.disk_len()));
    }
    Ok(figures)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let mut kinds = vec![Kind::Fjall, Kind::Sled];
    let mut puts = PUTS;
    for argument in arguments {
        match (argument.parse::<Kind>(), argument.parse::<u64>()) {
            (Ok(kind), _) => kinds = vec![kind],
            (Err(_), Ok(number)) => puts = number,
            (Err(_), Err(_)) => bail!("{argument} is neither an engine nor a number of puts"),
        }
    }
    println!("| engine | layout | keys | CPU us a put | puts/s | worst batch ms | disk MB |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for kind in kinds {
        let layouts: [(&str, &dyn Layout); 2] = [("pointer", &PointerLayout), ("moved", &MovedLayout)];
        for (name, layout) in layouts {
            let figures = run(kind, layout, puts).with_context(|| format!("{kind}, {name}"))?;
            for phase in figures {
                println!("| {kind} | {name} | {phase} |");
            }
        }
    }
    Ok(())
}

/// Returns the key with this number: 40 bytes.
fn key_of(number: u64) -> Bytes {
    Bytes::from(format!("orders/2026/{number:028}"))
}
