//! Memory, log and disk of every node, sampled while a copy is made.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use stead_testing::{Cluster, process};
use tokio::{
    sync::{Mutex, oneshot},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::verbs::dev::world::World;

const SAMPLED_EVERY: Duration = Duration::from_millis(500);
/// Name by which the system calls a file that has no name and is still open.
const WITHOUT_NAME: &str = " (deleted)";

/// Resources of one node, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    memory: u64,
    log: u64,
    disk: u64,
}

/// Growth of one resource at the node where it was the greatest.
#[derive(Clone, Debug, Default)]
pub(super) struct Growth {
    pub(super) node: String,
    pub(super) bytes: u64,
}

/// Greatest growth of each resource.
#[derive(Clone, Debug, Default)]
pub(super) struct Footprint {
    pub(super) memory: Growth,
    /// The log alone, which is part of the disk.
    pub(super) log: Growth,
    pub(super) disk: Growth,
}

/// Running sampler. A node that was not running at its start counts from its first sample on.
pub(super) struct Sampler {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Footprint>,
}

impl Sampler {
    pub(super) fn start(world: &World) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(sample(world.cluster.clone(), stopped));
        Self { stop, task }
    }

    /// Returns the greatest growth since the start.
    pub(super) async fn finish(self) -> anyhow::Result<Footprint> {
        let _ = self.stop.send(());
        Ok(self.task.await?)
    }
}

async fn sample(cluster: Arc<Mutex<Cluster>>, mut stopped: oneshot::Receiver<()>) -> Footprint {
    let mut ticks = interval(SAMPLED_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut rest, mut most) = (BTreeMap::<String, Used>::new(), Footprint::default());
    loop {
        tokio::select! {
            _ = &mut stopped => return most,
            _ = ticks.tick() => {}
        }
        let running: Vec<(String, u32, PathBuf)> = {
            let mut cluster = cluster.lock().await;
            let names: Vec<_> = cluster.nodes().iter().map(|node| node.name.clone()).collect();
            let of = |name: String| {
                let (process, data) = (cluster.process(&name)?, cluster.plan().data_of(&name));
                Some((name, process, data))
            };
            names.into_iter().filter_map(of).collect()
        };
        for (node, process, data) in running {
            // A node may end, and a file vanish, at any moment.
            let Ok(used) = used(process, &data) else { continue };
            let rest = *rest.entry(node.clone()).or_insert(used);
            most.memory.raise(&node, used.memory, rest.memory);
            most.log.raise(&node, used.log, rest.log);
            most.disk.raise(&node, used.disk, rest.disk);
        }
    }
}

impl Growth {
    fn raise(&mut self, node: &str, now: u64, rest: u64) {
        let bytes = now.saturating_sub(rest);
        if bytes > self.bytes {
            (self.node, self.bytes) = (node.to_owned(), bytes);
        }
    }

    /// Returns it in MiB.
    pub(super) fn mib(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20)
    }
}

fn used(process: u32, data: &Path) -> io::Result<Used> {
    Ok(Used {
        memory: process::usage(process)?.resident,
        log: len(&data.join("log")),
        disk: len(data) + len_without_name(process)?,
    })
}

/// Returns the bytes of all files below a folder, as far as they can be seen.
fn len(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => len(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(of).sum()
}

/// Returns the bytes of a process's open files that have no name, such as a snapshot that it receives.
fn len_without_name(process: u32) -> io::Result<u64> {
    let open = fs::read_dir(format!("/proc/{process}/fd"))?.flatten();
    let of = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        let is_gone = target.to_string_lossy().ends_with(WITHOUT_NAME);
        is_gone.then(|| fs::metadata(entry.path()).ok()).flatten()
    };
    Ok(open.filter_map(of).map(|metadata| metadata.len()).sum())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn files_with_and_without_names_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("log")).unwrap();
        fs::write(folder.path().join("log/1"), [0; 100]).unwrap();
        fs::write(folder.path().join("rows"), [0; 30]).unwrap();
        let before = used(std::process::id(), folder.path()).unwrap();
        assert_eq!(before.log, 100);
        let mut spool = fs::File::create(folder.path().join("spool")).unwrap();
        fs::remove_file(folder.path().join("spool")).unwrap();
        spool.write_all(&[0; 1 << 20]).unwrap();
        let after = used(std::process::id(), folder.path()).unwrap();
        assert!(after.disk >= before.disk + (1 << 20), "{before:?} {after:?}");
    }

    #[test]
    fn growth_is_that_of_the_node_that_grew_most() {
        let mut growth = Growth::default();
        growth.raise("a", 150, 100);
        growth.raise("b", 300, 290);
        growth.raise("c", 10, 100);
        assert_eq!((growth.node.as_str(), growth.bytes), ("a", 50));
    }
}
