//! Fault-injection disk in memory with two images of each file: the one that processes see (the page cache), and the
//! durable one that a power cut would leave.
//!
//! Only a sync moves data from the first to the second. As with ext4, data whose sync failed stays readable, counts as
//! written, and is lost at the next cut. Directory entries (create, rename, unlink) are durable at once: lost entries
//! are the one fault that this disk does not simulate.
//!
//! # Invariants
//!
//! 1. Data whose sync returned survives every cut, until it is overwritten.
//! 2. Data whose sync failed survives no cut, unless it is written again.
//! 3. From [`FaultInjectionDisk::cut`] to [`FaultInjectionDisk::restore`] nothing is written any more; processes still
//!    read the first image.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

/// Unit of unsynced data that a cut keeps or loses as a whole.
const SECTOR_LEN: u64 = 512;

/// The number of the root directory.
pub const ROOT: u64 = 1;

/// Error of a disk call, as an error number of the system.
pub type RawErrno = i32;

/// Fate of unsynced writes at a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsyncedWrites {
    /// All of it is lost.
    Lost,
    /// A random half of its sectors reaches the disk.
    Torn {
        /// Seed that chooses the sectors.
        seed: u64,
    },
}

/// Counters of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Syncs that returned.
    pub syncs: u64,
    /// Syncs that failed by fault injection.
    pub failed_syncs: u64,
    /// Bytes lost in cuts.
    pub bytes_lost: u64,
}

/// Attributes of a file or directory.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    /// Inode number.
    pub number: u64,
    /// Its length.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Its permissions.
    pub mode: u16,
    /// Time of the last write.
    pub modified: SystemTime,
}

/// Directory entry by its directory and name.
#[derive(Clone, Copy, Debug)]
pub struct EntryPath<'a> {
    /// Inode number of the directory.
    pub parent: u64,
    /// Name in the directory.
    pub name: &'a OsStr,
}

/// Sync that was begun and takes effect when [`FaultInjectionDisk::end_sync`] is called.
#[derive(Debug)]
pub struct PendingSync {
    file: u64,
    /// Dirty ranges up to this generation are part of it.
    generation: u64,
    cuts: u64,
}

/// Disk in memory with injected faults. Clones share its state.
#[derive(Clone, Debug)]
pub struct FaultInjectionDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    nodes: BTreeMap<u64, Inode>,
    last: u64,
    /// Number of the next syncs that fail.
    remaining_sync_failures: u32,
    sync_delay: Duration,
    is_cut: bool,
    /// Number of power cuts.
    cuts: u64,
    counts: Counts,
}

#[derive(Debug)]
struct Inode {
    mode: u16,
    modified: SystemTime,
    /// Directory entries that name it; at zero it is removed when the last process has closed it.
    links: u32,
    open_count: u32,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Directory(BTreeMap<OsString, u64>),
    File(File),
}

#[derive(Debug, Default)]
struct File {
    visible: Vec<u8>,
    durable: Vec<u8>,
    dirty_ranges: Vec<DirtyRange>,
    generation: u64,
    /// The smallest length since the last sync, if the file was truncated.
    min_len: Option<u64>,
    /// Whether the images may differ though nothing waits for a sync.
    images_differ: bool,
}

/// Range of bytes that were written and not synced.
#[derive(Clone, Debug)]
struct DirtyRange {
    range: Range<u64>,
    generation: u64,
}

impl Default for FaultInjectionDisk {
    fn default() -> Self {
        let root = Inode::new(Content::Directory(BTreeMap::new()), 0o755);
        Self(Arc::new(Mutex::new(State {
            nodes: BTreeMap::from([(ROOT, root)]),
            last: ROOT,
            remaining_sync_failures: 0,
            sync_delay: Duration::ZERO,
            is_cut: false,
            cuts: 0,
            counts: Counts::default(),
        })))
    }
}

/// Fault injection.
impl FaultInjectionDisk {
    /// Cuts power: what was not synced is lost or torn, and every later write and sync fails.
    pub fn cut(&self, unsynced: UnsyncedWrites) {
        let mut state = self.state();
        let mut random = match unsynced {
            UnsyncedWrites::Lost => None,
            UnsyncedWrites::Torn { seed } => Some(seed),
        };
        let lost: u64 = files(&mut state).map(|file| file.cut(random.as_mut())).sum();
        state.counts.bytes_lost += lost;
        state.is_cut = true;
        state.cuts += 1;
        state.remaining_sync_failures = 0;
    }

    /// Restores power, once no process has a file open any more. From here on processes see what the cut has left.
    pub fn restore(&self) {
        let mut state = self.state();
        for file in files(&mut state) {
            file.restore();
        }
        state.is_cut = false;
    }

    /// Makes the next syncs fail.
    pub fn fail_syncs(&self, count: u32) {
        self.state().remaining_sync_failures = count;
    }

    /// Returns how many of the next syncs fail.
    pub fn remaining_sync_failures(&self) -> u32 {
        self.state().remaining_sync_failures
    }

    /// Makes every sync take this long; its data is durable at its end.
    pub fn set_sync_delay(&self, time: Duration) {
        self.state().sync_delay = time;
    }

    /// Returns the counters.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }
}

fn files(state: &mut State) -> impl Iterator<Item = &mut File> {
    state.nodes.values_mut().filter_map(|node| match &mut node.content {
        Content::File(file) => Some(file),
        Content::Directory(_) => None,
    })
}

/// File system calls.
impl FaultInjectionDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of a test leaves nothing half done here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the attributes of a directory entry.
    pub fn lookup(&self, parent: u64, name: &OsStr) -> Result<Attributes, RawErrno> {
        let state = self.state();
        let number = state.entry(parent, name)?;
        state.attributes(number)
    }

    /// Returns the attributes of a file or directory.
    pub fn attributes(&self, number: u64) -> Result<Attributes, RawErrno> {
        self.state().attributes(number)
    }

    /// Creates a file or directory; a file that exists is left as it is.
    pub fn create(&self, parent: u64, name: &OsStr, is_dir: bool, mode: u16) -> Result<Attributes, RawErrno> {
        let mut state = self.state();
        state.check_power()?;
        if let Ok(found) = state.entry(parent, name) {
            return if is_dir {
                Err(libc::EEXIST)
            } else {
                state.attributes(found)
            };
        }
        let content = match is_dir {
            true => Content::Directory(BTreeMap::new()),
            false => Content::File(File::default()),
        };
        state.last += 1;
        let number = state.last;
        state.directory(parent)?.insert(name.to_owned(), number);
        state.nodes.insert(number, Inode::new(content, mode));
        state.attributes(number)
    }

    /// Notes that a process opened a file.
    pub fn open(&self, number: u64) -> Result<(), RawErrno> {
        self.state().node(number)?.open_count += 1;
        Ok(())
    }

    /// Notes that a process closed a file.
    pub fn close(&self, number: u64) {
        let mut state = self.state();
        if let Ok(node) = state.node(number) {
            node.open_count = node.open_count.saturating_sub(1);
        }
        state.remove_if_unused(number);
    }

    /// Removes an entry.
    pub fn remove(&self, parent: u64, name: &OsStr) -> Result<(), RawErrno> {
        let mut state = self.state();
        state.check_power()?;
        let number = state.entry(parent, name)?;
        if matches!(&state.node(number)?.content, Content::Directory(entries) if !entries.is_empty()) {
            return Err(libc::ENOTEMPTY);
        }
        state.directory(parent)?.remove(name);
        state.unlink(number);
        Ok(())
    }

    /// Renames an entry; an entry that had the new name is replaced.
    pub fn rename(&self, from: EntryPath<'_>, to: EntryPath<'_>) -> Result<(), RawErrno> {
        let mut state = self.state();
        state.check_power()?;
        let number = state.entry(from.parent, from.name)?;
        state.directory(to.parent)?;
        state.directory(from.parent)?.remove(from.name);
        if let Some(replaced) = state.directory(to.parent)?.insert(to.name.to_owned(), number) {
            state.unlink(replaced);
        }
        Ok(())
    }

    /// Returns the entries of a directory: name, number, whether it is a directory.
    pub fn entries(&self, number: u64) -> Result<Vec<(OsString, u64, bool)>, RawErrno> {
        let mut state = self.state();
        let entries = state.directory(number)?.clone();
        let shown = entries.into_iter().map(|(name, number)| {
            let is_dir = matches!(state.nodes.get(&number), Some(node) if node.is_dir());
            (name, number, is_dir)
        });
        Ok(shown.collect())
    }

    /// Changes permissions or length.
    pub fn change(&self, number: u64, mode: Option<u16>, len: Option<u64>) -> Result<Attributes, RawErrno> {
        let mut state = self.state();
        state.check_power()?;
        let node = state.node(number)?;
        node.mode = mode.unwrap_or(node.mode);
        if let Some(len) = len {
            node.modified = SystemTime::now();
            node.file()?.set_len(len);
        }
        state.attributes(number)
    }

    /// Reads from the image that processes see.
    pub fn read(&self, number: u64, offset: u64, len: usize) -> Result<Vec<u8>, RawErrno> {
        let mut state = self.state();
        let visible = &state.node(number)?.file()?.visible;
        let start = (offset as usize).min(visible.len());
        let end = start.saturating_add(len).min(visible.len());
        Ok(visible[start..end].to_vec())
    }

    /// Writes bytes, which become durable with a later sync.
    pub fn write(&self, number: u64, offset: u64, bytes: &[u8]) -> Result<(), RawErrno> {
        let mut state = self.state();
        state.check_power()?;
        let node = state.node(number)?;
        node.modified = SystemTime::now();
        node.file()?.write(offset, bytes);
        Ok(())
    }

    /// Begins a sync, and returns how long it takes.
    pub fn begin_sync(&self, number: u64) -> Result<(PendingSync, Duration), RawErrno> {
        let mut state = self.state();
        state.check_power()?;
        let (slow, cuts) = (state.sync_delay, state.cuts);
        let fails = 0 < state.remaining_sync_failures;
        let file = state.node(number)?.file()?;
        if fails {
            file.fail_sync();
            state.remaining_sync_failures -= 1;
            state.counts.failed_syncs += 1;
            return Err(libc::EIO);
        }
        let sync = PendingSync {
            file: number,
            generation: file.generation,
            cuts,
        };
        file.generation += 1;
        Ok((sync, slow))
    }

    /// Ends a sync: data written before it began is durable.
    pub fn end_sync(&self, sync: &PendingSync) -> Result<(), RawErrno> {
        let mut state = self.state();
        state.check_power()?;
        if state.cuts != sync.cuts {
            return Err(libc::EIO);
        }
        state.counts.syncs += 1;
        // A file may be closed and gone before its slow sync ends.
        if let Ok(node) = state.node(sync.file) {
            node.file()?.sync(sync.generation);
        }
        Ok(())
    }
}

impl State {
    fn check_power(&self) -> Result<(), RawErrno> {
        if self.is_cut { Err(libc::EIO) } else { Ok(()) }
    }

    fn node(&mut self, number: u64) -> Result<&mut Inode, RawErrno> {
        self.nodes.get_mut(&number).ok_or(libc::ENOENT)
    }

    fn directory(&mut self, number: u64) -> Result<&mut BTreeMap<OsString, u64>, RawErrno> {
        match &mut self.node(number)?.content {
            Content::Directory(entries) => Ok(entries),
            Content::File(_) => Err(libc::ENOTDIR),
        }
    }

    fn entry(&self, parent: u64, name: &OsStr) -> Result<u64, RawErrno> {
        match self.nodes.get(&parent).map(|node| &node.content) {
            Some(Content::Directory(entries)) => entries.get(name).copied().ok_or(libc::ENOENT),
            Some(Content::File(_)) => Err(libc::ENOTDIR),
            None => Err(libc::ENOENT),
        }
    }

    fn attributes(&self, number: u64) -> Result<Attributes, RawErrno> {
        let node = self.nodes.get(&number).ok_or(libc::ENOENT)?;
        let len = match &node.content {
            Content::File(file) => file.visible.len() as u64,
            Content::Directory(_) => 0,
        };
        Ok(Attributes {
            number,
            len,
            is_dir: node.is_dir(),
            mode: node.mode,
            modified: node.modified,
        })
    }

    fn unlink(&mut self, number: u64) {
        if let Ok(node) = self.node(number) {
            node.links = node.links.saturating_sub(1);
        }
        self.remove_if_unused(number);
    }

    fn remove_if_unused(&mut self, number: u64) {
        if self
            .nodes
            .get(&number)
            .is_some_and(|node| node.links == 0 && node.open_count == 0)
        {
            self.nodes.remove(&number);
        }
    }
}

impl Inode {
    fn new(content: Content, mode: u16) -> Self {
        Self {
            mode,
            modified: SystemTime::now(),
            links: 1,
            open_count: 0,
            content,
        }
    }

    fn is_dir(&self) -> bool {
        matches!(self.content, Content::Directory(_))
    }

    fn file(&mut self) -> Result<&mut File, RawErrno> {
        match &mut self.content {
            Content::File(file) => Ok(file),
            Content::Directory(_) => Err(libc::EISDIR),
        }
    }
}

impl File {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        let len = self.visible.len() as u64;
        if len < end {
            self.visible.resize(end as usize, 0);
        }
        self.visible[offset as usize..end as usize].copy_from_slice(bytes);
        self.mark_dirty(offset.min(len)..end);
    }

    fn set_len(&mut self, len: u64) {
        let before = self.visible.len() as u64;
        self.visible.resize(len as usize, 0);
        if len < before {
            self.min_len = Some(self.min_len.map_or(len, |min_len| min_len.min(len)));
            for dirty in &mut self.dirty_ranges {
                dirty.range.end = dirty.range.end.min(len);
            }
            self.dirty_ranges.retain(|dirty| !dirty.range.is_empty());
        } else if before < len {
            self.mark_dirty(before..len);
        }
    }

    fn mark_dirty(&mut self, range: Range<u64>) {
        let generation = self.generation;
        match self.dirty_ranges.last_mut() {
            Some(last) if last.generation == generation && last.range.end == range.start => {
                last.range.end = range.end;
            }
            _ => self.dirty_ranges.push(DirtyRange { range, generation }),
        }
    }

    fn sync(&mut self, generation: u64) {
        if let Some(min_len) = self.min_len.take() {
            self.durable.truncate(min_len as usize);
        }
        let unsynced = std::mem::take(&mut self.dirty_ranges);
        let (done, rest): (Vec<DirtyRange>, Vec<DirtyRange>) =
            unsynced.into_iter().partition(|dirty| dirty.generation <= generation);
        self.dirty_ranges = rest;
        for dirty in done {
            self.make_durable(dirty.range);
        }
    }

    /// Fails a sync as ext4 does: dirty data is marked clean and never written.
    fn fail_sync(&mut self) {
        self.dirty_ranges.clear();
        self.min_len = None;
        self.images_differ = true;
    }

    /// Copies a range of the visible image into the durable one.
    fn make_durable(&mut self, range: Range<u64>) {
        let (start, end) = (range.start as usize, (range.end as usize).min(self.visible.len()));
        if start < end {
            if self.durable.len() < end {
                self.durable.resize(end, 0);
            }
            self.durable[start..end].copy_from_slice(&self.visible[start..end]);
        }
    }

    /// Loses unsynced data, and returns how many bytes were lost.
    fn cut(&mut self, mut random: Option<&mut u64>) -> u64 {
        let unsynced = std::mem::take(&mut self.dirty_ranges);
        // Of a file that was truncated and written again, nothing since then reaches the disk.
        let is_torn = self.min_len.take().is_none();
        self.images_differ |= !unsynced.is_empty() || !is_torn;
        let mut lost = 0;
        for sector in unsynced.into_iter().flat_map(|dirty| sectors(dirty.range)) {
            let is_kept = random
                .as_deref_mut()
                .is_some_and(|seed| next_random(seed).is_multiple_of(2));
            if is_kept && is_torn {
                self.make_durable(sector);
            } else {
                lost += sector.end - sector.start;
            }
        }
        lost
    }

    fn restore(&mut self) {
        if std::mem::take(&mut self.images_differ) {
            self.visible.clone_from(&self.durable);
        }
        self.dirty_ranges.clear();
        self.min_len = None;
    }
}

fn sectors(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let end = ((start / SECTOR_LEN + 1) * SECTOR_LEN).min(range.end);
        let sector = start..end;
        start = end;
        (!sector.is_empty()).then_some(sector)
    })
}

/// Returns the next number of a seeded sequence (SplitMix64).
pub fn next_random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(disk: &FaultInjectionDisk) -> u64 {
        disk.create(ROOT, OsStr::new("f"), false, 0o644).unwrap().number
    }

    fn sync(disk: &FaultInjectionDisk, file: u64) -> Result<(), RawErrno> {
        let (sync, _) = disk.begin_sync(file)?;
        disk.end_sync(&sync)
    }

    fn visible(disk: &FaultInjectionDisk, file: u64) -> Vec<u8> {
        disk.read(file, 0, 1 << 20).unwrap()
    }

    fn cut(disk: &FaultInjectionDisk, unsynced: UnsyncedWrites) {
        disk.cut(unsynced);
        disk.restore();
    }

    #[test]
    fn disk_keeps_synced_data_and_loses_unsynced() {
        // Invariants 1 and 3.
        let disk = FaultInjectionDisk::default();
        let file = file(&disk);
        disk.write(file, 0, b"synced").unwrap();
        sync(&disk, file).unwrap();
        disk.write(file, 6, b" and not").unwrap();
        disk.cut(UnsyncedWrites::Lost);
        assert_eq!(visible(&disk, file), b"synced and not");
        assert_eq!(disk.write(file, 0, b"x"), Err(libc::EIO));
        assert_eq!(sync(&disk, file), Err(libc::EIO));
        disk.restore();
        assert_eq!(visible(&disk, file), b"synced");
        assert_eq!(disk.counts().bytes_lost, 8);
    }

    #[test]
    fn disk_loses_data_of_failed_sync_despite_later_sync() {
        // Invariant 2.
        let disk = FaultInjectionDisk::default();
        let file = file(&disk);
        disk.write(file, 0, b"one ").unwrap();
        disk.fail_syncs(1);
        assert_eq!(sync(&disk, file), Err(libc::EIO));
        assert_eq!(visible(&disk, file), b"one ");
        disk.write(file, 4, b"two").unwrap();
        sync(&disk, file).unwrap();
        cut(&disk, UnsyncedWrites::Lost);
        assert_eq!(visible(&disk, file), b"\0\0\0\0two");
        disk.write(file, 0, b"one ").unwrap();
        sync(&disk, file).unwrap();
        cut(&disk, UnsyncedWrites::Lost);
        assert_eq!(visible(&disk, file), b"one two");
    }

    #[test]
    fn torn_disk_keeps_some_unsynced_sectors() {
        let disk = FaultInjectionDisk::default();
        let file = file(&disk);
        disk.write(file, 0, &[7; 64 * SECTOR_LEN as usize]).unwrap();
        cut(&disk, UnsyncedWrites::Torn { seed: 1 });
        let kept = visible(&disk, file).iter().filter(|byte| **byte == 7).count();
        assert!((10..54).contains(&(kept / SECTOR_LEN as usize)), "{kept}");
    }

    #[test]
    fn slow_sync_covers_only_earlier_writes_at_its_end() {
        let disk = FaultInjectionDisk::default();
        let file = file(&disk);
        disk.write(file, 0, b"before").unwrap();
        let (begun, _) = disk.begin_sync(file).unwrap();
        disk.write(file, 6, b"after").unwrap();
        disk.end_sync(&begun).unwrap();
        cut(&disk, UnsyncedWrites::Lost);
        assert_eq!(visible(&disk, file), b"before");
        disk.write(file, 0, b"BEFORE").unwrap();
        let (begun, _) = disk.begin_sync(file).unwrap();
        cut(&disk, UnsyncedWrites::Lost);
        assert_eq!(disk.end_sync(&begun), Err(libc::EIO));
        assert_eq!(visible(&disk, file), b"before");
    }

    #[test]
    fn truncated_file_keeps_length_until_synced() {
        let disk = FaultInjectionDisk::default();
        let file = file(&disk);
        disk.write(file, 0, b"long").unwrap();
        sync(&disk, file).unwrap();
        disk.change(file, None, Some(1)).unwrap();
        cut(&disk, UnsyncedWrites::Lost);
        assert_eq!(visible(&disk, file), b"long");
        disk.change(file, None, Some(1)).unwrap();
        disk.change(file, None, Some(3)).unwrap();
        sync(&disk, file).unwrap();
        cut(&disk, UnsyncedWrites::Lost);
        assert_eq!(visible(&disk, file), b"l\0\0");
    }

    #[test]
    fn removed_file_stays_readable_until_closed() {
        let disk = FaultInjectionDisk::default();
        let file = file(&disk);
        disk.open(file).unwrap();
        disk.write(file, 0, b"x").unwrap();
        disk.remove(ROOT, OsStr::new("f")).unwrap();
        assert_eq!(visible(&disk, file), b"x");
        disk.close(file);
        assert_eq!(disk.attributes(file).unwrap_err(), libc::ENOENT);
    }
}
