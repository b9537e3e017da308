//! A disk in memory with two images of each file: what processes see, and what a power cut would leave.
//!
//! Only a sync moves data from the first to the second. As with ext4, data whose sync failed stays readable, counts as
//! written, and is gone with the next cut. Entries of directories (create, rename, unlink) are durable at once: lost
//! entries are the one thing that this disk does not show.
//!
//! # Invariants
//!
//! 1. What a sync that returned has written survives every cut, until it is overwritten.
//! 2. Data whose sync failed survives no cut, unless it is written again.
//! 3. From [`Disk::cut`] to [`Disk::restore`] nothing is written any more; processes go on seeing what they saw.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

/// What a cut leaves whole of data that was not synced.
const SECTOR_LEN: u64 = 512;

/// The number of the root directory.
pub const ROOT: u64 = 1;

/// A call that the disk refuses, as an error number of the system.
pub type Refused = i32;

/// What becomes of data that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// All of it is lost.
    Lost,
    /// A random half of its sectors reaches the disk.
    Torn {
        /// Which ones.
        seed: u64,
    },
}

/// What a disk has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Syncs that returned.
    pub syncs: u64,
    /// Syncs that failed on request.
    pub failed_syncs: u64,
    /// Bytes that cuts have taken.
    pub bytes_lost: u64,
}

/// What the system asks about a file or directory.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    /// Its number.
    pub number: u64,
    /// Its length.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Its permissions.
    pub mode: u16,
    /// When it was written last.
    pub modified: SystemTime,
}

/// A sync that was begun and will be done when [`Disk::end_sync`] is called.
#[derive(Debug)]
pub struct Sync {
    file: u64,
    /// Unsynced ranges up to this generation are part of it.
    generation: u64,
    cuts: u64,
}

/// A disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    nodes: BTreeMap<u64, Node>,
    last: u64,
    /// Syncs that are yet to fail.
    syncs_to_fail: u32,
    slow_sync: Duration,
    is_cut: bool,
    /// How often power was cut.
    cuts: u64,
    counts: Counts,
}

#[derive(Debug)]
struct Node {
    mode: u16,
    modified: SystemTime,
    /// Entries that name it; zero: it goes when the last process has closed it.
    links: u32,
    opened: u32,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Directory(BTreeMap<OsString, u64>),
    File(File),
}

#[derive(Debug, Default)]
struct File {
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Unsaved>,
    generation: u64,
    /// The smallest length since the last sync, if the file was cut short.
    shortest: Option<u64>,
    /// Both images may differ though nothing waits for a sync.
    lost_sync: bool,
}

/// Bytes that were written and not synced.
#[derive(Clone, Debug)]
struct Unsaved {
    range: Range<u64>,
    generation: u64,
}

impl Default for Disk {
    fn default() -> Self {
        let root = Node::new(Content::Directory(BTreeMap::new()), 0o755);
        Self(Arc::new(Mutex::new(State {
            nodes: BTreeMap::from([(ROOT, root)]),
            last: ROOT,
            syncs_to_fail: 0,
            slow_sync: Duration::ZERO,
            is_cut: false,
            cuts: 0,
            counts: Counts::default(),
        })))
    }
}

/// Faults.
impl Disk {
    /// Cuts power: what was not synced is lost or torn, and every later write and sync fails.
    pub fn cut(&self, unsynced: Unsynced) {
        let mut state = self.state();
        let mut random = match unsynced {
            Unsynced::Lost => None,
            Unsynced::Torn { seed } => Some(seed),
        };
        let lost: u64 = files(&mut state).map(|file| file.cut(random.as_mut())).sum();
        state.counts.bytes_lost += lost;
        state.is_cut = true;
        state.cuts += 1;
        state.syncs_to_fail = 0;
    }

    /// Gives power back, once no process has a file open any more. From here on processes see what the cut has left.
    pub fn restore(&self) {
        let mut state = self.state();
        for file in files(&mut state) {
            file.restore();
        }
        state.is_cut = false;
    }

    /// Makes the next syncs fail.
    pub fn fail_syncs(&self, count: u32) {
        self.state().syncs_to_fail = count;
    }

    /// Tells how many syncs are yet to fail.
    pub fn syncs_to_fail(&self) -> u32 {
        self.state().syncs_to_fail
    }

    /// Makes every sync take this long; what it writes is durable at its end.
    pub fn slow_syncs(&self, time: Duration) {
        self.state().slow_sync = time;
    }

    /// Returns what the disk has done so far.
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

/// What the system asks for.
impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of a test leaves nothing half done here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of an entry.
    pub fn lookup(&self, parent: u64, name: &OsStr) -> Result<Attributes, Refused> {
        let state = self.state();
        let number = state.entry(parent, name)?;
        state.attributes(number)
    }

    /// Returns what a file or directory is.
    pub fn attributes(&self, number: u64) -> Result<Attributes, Refused> {
        self.state().attributes(number)
    }

    /// Makes a file or directory; a file that exists is left as it is.
    pub fn create(&self, parent: u64, name: &OsStr, is_dir: bool, mode: u16) -> Result<Attributes, Refused> {
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
        state.nodes.insert(number, Node::new(content, mode));
        state.attributes(number)
    }

    /// Notes that a process opened a file.
    pub fn open(&self, number: u64) -> Result<(), Refused> {
        self.state().node(number)?.opened += 1;
        Ok(())
    }

    /// Notes that a process closed a file.
    pub fn close(&self, number: u64) {
        let mut state = self.state();
        if let Ok(node) = state.node(number) {
            node.opened = node.opened.saturating_sub(1);
        }
        state.forget_if_unused(number);
    }

    /// Removes an entry.
    pub fn remove(&self, parent: u64, name: &OsStr) -> Result<(), Refused> {
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

    /// Gives an entry another name; what had that name is gone.
    pub fn rename(&self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), Refused> {
        let mut state = self.state();
        state.check_power()?;
        let number = state.entry(from.0, from.1)?;
        state.directory(to.0)?;
        state.directory(from.0)?.remove(from.1);
        if let Some(replaced) = state.directory(to.0)?.insert(to.1.to_owned(), number) {
            state.unlink(replaced);
        }
        Ok(())
    }

    /// Returns the entries of a directory: name, number, whether it is a directory.
    pub fn entries(&self, number: u64) -> Result<Vec<(OsString, u64, bool)>, Refused> {
        let mut state = self.state();
        let entries = state.directory(number)?.clone();
        let shown = entries.into_iter().map(|(name, number)| {
            let is_dir = matches!(state.nodes.get(&number), Some(node) if node.is_dir());
            (name, number, is_dir)
        });
        Ok(shown.collect())
    }

    /// Changes permissions or length.
    pub fn change(&self, number: u64, mode: Option<u16>, len: Option<u64>) -> Result<Attributes, Refused> {
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

    /// Reads what processes see.
    pub fn read(&self, number: u64, offset: u64, len: usize) -> Result<Vec<u8>, Refused> {
        let mut state = self.state();
        let seen = &state.node(number)?.file()?.seen;
        let start = (offset as usize).min(seen.len());
        let end = start.saturating_add(len).min(seen.len());
        Ok(seen[start..end].to_vec())
    }

    /// Writes; durable with a later sync.
    pub fn write(&self, number: u64, offset: u64, bytes: &[u8]) -> Result<(), Refused> {
        let mut state = self.state();
        state.check_power()?;
        let node = state.node(number)?;
        node.modified = SystemTime::now();
        node.file()?.write(offset, bytes);
        Ok(())
    }

    /// Begins a sync, and tells how long it takes.
    pub fn begin_sync(&self, number: u64) -> Result<(Sync, Duration), Refused> {
        let mut state = self.state();
        state.check_power()?;
        let (slow, cuts) = (state.slow_sync, state.cuts);
        let fails = 0 < state.syncs_to_fail;
        let file = state.node(number)?.file()?;
        if fails {
            file.fail_sync();
            state.syncs_to_fail -= 1;
            state.counts.failed_syncs += 1;
            return Err(libc::EIO);
        }
        let sync = Sync {
            file: number,
            generation: file.generation,
            cuts,
        };
        file.generation += 1;
        Ok((sync, slow))
    }

    /// Ends a sync: what was written before it began is durable.
    pub fn end_sync(&self, sync: &Sync) -> Result<(), Refused> {
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
    fn check_power(&self) -> Result<(), Refused> {
        if self.is_cut { Err(libc::EIO) } else { Ok(()) }
    }

    fn node(&mut self, number: u64) -> Result<&mut Node, Refused> {
        self.nodes.get_mut(&number).ok_or(libc::ENOENT)
    }

    fn directory(&mut self, number: u64) -> Result<&mut BTreeMap<OsString, u64>, Refused> {
        match &mut self.node(number)?.content {
            Content::Directory(entries) => Ok(entries),
            Content::File(_) => Err(libc::ENOTDIR),
        }
    }

    fn entry(&self, parent: u64, name: &OsStr) -> Result<u64, Refused> {
        match self.nodes.get(&parent).map(|node| &node.content) {
            Some(Content::Directory(entries)) => entries.get(name).copied().ok_or(libc::ENOENT),
            Some(Content::File(_)) => Err(libc::ENOTDIR),
            None => Err(libc::ENOENT),
        }
    }

    fn attributes(&self, number: u64) -> Result<Attributes, Refused> {
        let node = self.nodes.get(&number).ok_or(libc::ENOENT)?;
        let len = match &node.content {
            Content::File(file) => file.seen.len() as u64,
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
        self.forget_if_unused(number);
    }

    fn forget_if_unused(&mut self, number: u64) {
        if self
            .nodes
            .get(&number)
            .is_some_and(|node| node.links == 0 && node.opened == 0)
        {
            self.nodes.remove(&number);
        }
    }
}

impl Node {
    fn new(content: Content, mode: u16) -> Self {
        Self {
            mode,
            modified: SystemTime::now(),
            links: 1,
            opened: 0,
            content,
        }
    }

    fn is_dir(&self) -> bool {
        matches!(self.content, Content::Directory(_))
    }

    fn file(&mut self) -> Result<&mut File, Refused> {
        match &mut self.content {
            Content::File(file) => Ok(file),
            Content::Directory(_) => Err(libc::EISDIR),
        }
    }
}

impl File {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        let len = self.seen.len() as u64;
        if len < end {
            self.seen.resize(end as usize, 0);
        }
        self.seen[offset as usize..end as usize].copy_from_slice(bytes);
        self.note(offset.min(len)..end);
    }

    fn set_len(&mut self, len: u64) {
        let before = self.seen.len() as u64;
        self.seen.resize(len as usize, 0);
        if len < before {
            self.shortest = Some(self.shortest.map_or(len, |shortest| shortest.min(len)));
            for unsaved in &mut self.unsynced {
                unsaved.range.end = unsaved.range.end.min(len);
            }
            self.unsynced.retain(|unsaved| !unsaved.range.is_empty());
        } else if before < len {
            self.note(before..len);
        }
    }

    fn note(&mut self, range: Range<u64>) {
        let generation = self.generation;
        match self.unsynced.last_mut() {
            Some(last) if last.generation == generation && last.range.end == range.start => {
                last.range.end = range.end;
            }
            _ => self.unsynced.push(Unsaved { range, generation }),
        }
    }

    fn sync(&mut self, generation: u64) {
        if let Some(shortest) = self.shortest.take() {
            self.durable.truncate(shortest as usize);
        }
        let unsynced = std::mem::take(&mut self.unsynced);
        let (done, rest): (Vec<Unsaved>, Vec<Unsaved>) = unsynced
            .into_iter()
            .partition(|unsaved| unsaved.generation <= generation);
        self.unsynced = rest;
        for unsaved in done {
            self.save(unsaved.range);
        }
    }

    /// As ext4: marked clean, and never written.
    fn fail_sync(&mut self) {
        self.unsynced.clear();
        self.shortest = None;
        self.lost_sync = true;
    }

    /// Writes a range of what is seen into the image that a cut leaves.
    fn save(&mut self, range: Range<u64>) {
        let (start, end) = (range.start as usize, (range.end as usize).min(self.seen.len()));
        if start < end {
            if self.durable.len() < end {
                self.durable.resize(end, 0);
            }
            self.durable[start..end].copy_from_slice(&self.seen[start..end]);
        }
    }

    /// Returns how many bytes are lost.
    fn cut(&mut self, mut random: Option<&mut u64>) -> u64 {
        let unsynced = std::mem::take(&mut self.unsynced);
        // Of a file that was cut short and written again, nothing since then reaches the disk.
        let is_torn = self.shortest.take().is_none();
        self.lost_sync |= !unsynced.is_empty() || !is_torn;
        let mut lost = 0;
        for sector in unsynced.into_iter().flat_map(|unsaved| sectors(unsaved.range)) {
            let is_kept = random
                .as_deref_mut()
                .is_some_and(|seed| next_random(seed).is_multiple_of(2));
            if is_kept && is_torn {
                self.save(sector);
            } else {
                lost += sector.end - sector.start;
            }
        }
        lost
    }

    fn restore(&mut self) {
        if std::mem::take(&mut self.lost_sync) {
            self.seen.clone_from(&self.durable);
        }
        self.unsynced.clear();
        self.shortest = None;
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

/// The next number of a seeded sequence (SplitMix64).
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

    fn file(disk: &Disk) -> u64 {
        disk.create(ROOT, OsStr::new("f"), false, 0o644).unwrap().number
    }

    fn sync(disk: &Disk, file: u64) -> Result<(), Refused> {
        let (sync, _) = disk.begin_sync(file)?;
        disk.end_sync(&sync)
    }

    fn seen(disk: &Disk, file: u64) -> Vec<u8> {
        disk.read(file, 0, 1 << 20).unwrap()
    }

    fn cut(disk: &Disk, unsynced: Unsynced) {
        disk.cut(unsynced);
        disk.restore();
    }

    #[test]
    fn disk_keeps_synced_data_and_loses_the_rest() {
        // Invariants 1 and 3.
        let disk = Disk::default();
        let file = file(&disk);
        disk.write(file, 0, b"synced").unwrap();
        sync(&disk, file).unwrap();
        disk.write(file, 6, b" and not").unwrap();
        disk.cut(Unsynced::Lost);
        assert_eq!(seen(&disk, file), b"synced and not");
        assert_eq!(disk.write(file, 0, b"x"), Err(libc::EIO));
        assert_eq!(sync(&disk, file), Err(libc::EIO));
        disk.restore();
        assert_eq!(seen(&disk, file), b"synced");
        assert_eq!(disk.counts().bytes_lost, 8);
    }

    #[test]
    fn disk_forgets_data_whose_sync_failed_though_a_later_one_succeeds() {
        // Invariant 2.
        let disk = Disk::default();
        let file = file(&disk);
        disk.write(file, 0, b"one ").unwrap();
        disk.fail_syncs(1);
        assert_eq!(sync(&disk, file), Err(libc::EIO));
        assert_eq!(seen(&disk, file), b"one ");
        disk.write(file, 4, b"two").unwrap();
        sync(&disk, file).unwrap();
        cut(&disk, Unsynced::Lost);
        assert_eq!(seen(&disk, file), b"\0\0\0\0two");
        disk.write(file, 0, b"one ").unwrap();
        sync(&disk, file).unwrap();
        cut(&disk, Unsynced::Lost);
        assert_eq!(seen(&disk, file), b"one two");
    }

    #[test]
    fn torn_disk_keeps_a_part_of_unsynced_sectors() {
        let disk = Disk::default();
        let file = file(&disk);
        disk.write(file, 0, &[7; 64 * SECTOR_LEN as usize]).unwrap();
        cut(&disk, Unsynced::Torn { seed: 1 });
        let kept = seen(&disk, file).iter().filter(|byte| **byte == 7).count();
        assert!((10..54).contains(&(kept / SECTOR_LEN as usize)), "{kept}");
    }

    #[test]
    fn slow_sync_is_durable_at_its_end_and_only_with_what_was_before_it() {
        let disk = Disk::default();
        let file = file(&disk);
        disk.write(file, 0, b"before").unwrap();
        let (begun, _) = disk.begin_sync(file).unwrap();
        disk.write(file, 6, b"after").unwrap();
        disk.end_sync(&begun).unwrap();
        cut(&disk, Unsynced::Lost);
        assert_eq!(seen(&disk, file), b"before");
        disk.write(file, 0, b"BEFORE").unwrap();
        let (begun, _) = disk.begin_sync(file).unwrap();
        cut(&disk, Unsynced::Lost);
        assert_eq!(disk.end_sync(&begun), Err(libc::EIO));
        assert_eq!(seen(&disk, file), b"before");
    }

    #[test]
    fn shortened_file_is_as_long_as_before_until_it_is_synced() {
        let disk = Disk::default();
        let file = file(&disk);
        disk.write(file, 0, b"long").unwrap();
        sync(&disk, file).unwrap();
        disk.change(file, None, Some(1)).unwrap();
        cut(&disk, Unsynced::Lost);
        assert_eq!(seen(&disk, file), b"long");
        disk.change(file, None, Some(1)).unwrap();
        disk.change(file, None, Some(3)).unwrap();
        sync(&disk, file).unwrap();
        cut(&disk, Unsynced::Lost);
        assert_eq!(seen(&disk, file), b"l\0\0");
    }

    #[test]
    fn removed_file_stays_until_it_is_closed() {
        let disk = Disk::default();
        let file = file(&disk);
        disk.open(file).unwrap();
        disk.write(file, 0, b"x").unwrap();
        disk.remove(ROOT, OsStr::new("f")).unwrap();
        assert_eq!(seen(&disk, file), b"x");
        disk.close(file);
        assert_eq!(disk.attributes(file).unwrap_err(), libc::ENOENT);
    }
}
