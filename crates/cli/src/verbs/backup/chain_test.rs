//! Tests of chains and of what is composed of them: against a model that applies the changes one by one.

use std::{collections::BTreeMap, io::Read, path::Path, rc::Rc};

use stead_client::{Event, EventKind, Item, Revision};
use stead_types::TenantTime;

use super::{
    catalog::Catalog,
    chain::{Chain, Moment, Point},
    compose::{Composition, Summary},
    files::Sink,
    kept,
    manifest::{Manifest, Since, TenantBackup},
    parts::{ChangesWriter, ContentDigest, KeysWriter, PartsWriter},
    place::Place,
    seal::Key,
};

const TENANT: &str = "acme";

/// Tenant in memory with its history: each change has the time of ten times its sequence.
#[derive(Default)]
struct Model {
    events: Vec<Event>,
}

impl Model {
    fn put(&mut self, key: &str, value: &str) {
        self.event(EventKind::Put, key, value, None);
    }

    fn event(&mut self, kind: EventKind, key: &str, value: &str, expires: Option<u64>) {
        let sequence = self.events.len() as u64 + 1;
        let modified = revision(sequence);
        self.events.push(Event {
            kind,
            item: Item {
                key: key.as_bytes().to_vec().into(),
                value: value.as_bytes().to_vec().into(),
                created: modified,
                modified,
                version: 1,
                expires: expires.map(TenantTime),
            },
            previous: None,
            time: Some(TenantTime(10 * sequence)),
        });
    }

    /// Returns all keys at a sequence.
    fn at(&self, sequence: u64) -> BTreeMap<Vec<u8>, Item> {
        let mut keys = BTreeMap::new();
        for event in &self.events[..sequence as usize] {
            match event.kind {
                EventKind::Put => keys.insert(event.item.key.to_vec(), event.item.clone()),
                EventKind::Delete | EventKind::Expire => keys.remove(&event.item.key[..]),
            };
        }
        keys
    }

    fn summary(&self, sequence: u64) -> (u64, String) {
        let mut content = ContentDigest::default();
        for item in self.at(sequence).values() {
            content.push(&item.key, &item.value, item.expires.is_some());
        }
        content.finish()
    }

    /// Backs up all keys at a sequence, or the changes since a backup.
    fn back_up(&self, place: &Place, key: Option<&Key>, id: &str, sequence: u64, base: Option<&Rc<Manifest>>) {
        let sink = Sink {
            place: place.clone(),
            id: id.to_owned(),
            key: key.cloned(),
        };
        let mut manifest = Manifest::new(id.to_owned(), "now".to_owned(), None);
        let parts = PartsWriter::new(&sink, TENANT.to_owned());
        let mut backup = TenantBackup {
            number: 7,
            revision: revision(sequence).to_string(),
            time: Some(10 * sequence),
            ..TenantBackup::default()
        };
        match base {
            None => {
                let mut writer = KeysWriter::new(parts);
                for item in self.at(sequence).values() {
                    writer.push(item, TenantTime(10 * sequence)).unwrap();
                }
                let written = writer.finish().unwrap();
                (backup.keys, backup.bytes, backup.parts) = (written.keys, written.bytes, written.parts);
                (backup.lasting_keys, backup.content) = (written.lasting_keys, written.content);
            }
            Some(base) => {
                let first = base.tenants[TENANT].revision().unwrap().sequence().get();
                let mut writer = ChangesWriter::new(parts);
                for event in &self.events[first as usize..] {
                    writer.push(std::slice::from_ref(event), revision(sequence)).unwrap();
                }
                (backup.changes, backup.bytes, backup.parts) = writer.finish().unwrap();
                backup.since = Some(Since {
                    backup: base.id.clone(),
                    revision: base.tenants[TENANT].revision.clone(),
                });
                manifest.bases.insert(base.id.clone(), base.digest.clone());
            }
        }
        manifest.tenants.insert(TENANT.to_owned(), backup);
        manifest.store(&sink).unwrap();
    }
}

fn revision(sequence: u64) -> Revision {
    format!("1.{sequence}").parse().unwrap()
}

fn catalog(folder: &Path, key: Option<&Key>) -> Catalog {
    Catalog::new(Place::Folder(folder.to_owned()), key.cloned())
}

/// Backs a model up: all keys at 4, changes up to 7 and 9, and all keys again at 12.
fn history(folder: &Path, key: Option<&Key>) -> Model {
    let mut model = Model::default();
    model.put("a", "1"); // 1
    model.put("b", "1");
    model.put("c", "1");
    model.event(EventKind::Put, "t", "1", Some(500)); // 4
    model.put("a", "2");
    model.event(EventKind::Delete, "b", "", None);
    model.put("d", "1"); // 7
    model.put("b", "2");
    model.event(EventKind::Expire, "c", "", None); // 9
    model.put("a", "3");
    model.put("e", "1");
    model.put("f", "1"); // 12
    let place = Place::Folder(folder.to_owned());
    model.back_up(&place, key, "1", 4, None);
    let base = |id: &str| catalog(folder, key).get(id).unwrap();
    model.back_up(&place, key, "2", 7, Some(&base("1")));
    model.back_up(&place, key, "3", 9, Some(&base("2")));
    model.back_up(&place, key, "4", 12, None);
    model
}

fn summary(chain: &Chain, at: Point) -> Summary {
    Composition::open(chain, at).unwrap().summarize().unwrap()
}

fn refused(catalog: &Catalog, moment: Moment) -> String {
    kept::find(catalog, TENANT, None, moment).unwrap_err().text().to_owned()
}

#[test]
fn every_kept_revision_is_composed_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    for key in [None, Some(Key::generate())] {
        let model = history(folder.path(), key.as_ref());
        let catalog = catalog(folder.path(), key.as_ref());
        for sequence in [4, 5, 6, 7, 8, 9, 12] {
            let (chain, at) = kept::find(&catalog, TENANT, None, Moment::Revision(revision(sequence))).unwrap();
            chain.verify().unwrap();
            let composed = summary(&chain, at);
            assert_eq!(
                (composed.lasting_keys, composed.content),
                model.summary(sequence),
                "{sequence}"
            );
            assert_eq!(composed.keys, model.at(sequence).len() as u64);
            assert_eq!(at.time, Some(TenantTime(10 * sequence)));
        }
        let gap = refused(&catalog, Moment::Revision(revision(10)));
        assert_eq!(gap, "tenant acme: revision 1.10 is not kept; kept is 1.4 to 1.9, 1.12");
        assert!(refused(&catalog, Moment::Revision(revision(3))).contains("1.3 is not kept"));
    }
}

#[test]
fn time_finds_the_last_change_before_it() {
    let folder = tempfile::tempdir().unwrap();
    history(folder.path(), None);
    let catalog = catalog(folder.path(), None);
    for (time, sequence) in [(40, 4), (49, 4), (50, 5), (69, 6), (75, 7), (90, 9)] {
        let (_, at) = kept::find(&catalog, TENANT, None, Moment::Time(TenantTime(time))).unwrap();
        assert_eq!(at.revision, revision(sequence), "{time}");
    }
    let later = refused(&catalog, Moment::Time(TenantTime(95)));
    let expected = "tenant acme: 1970-01-01T00:00:00.095Z is not kept; kept is 1970-01-01T00:00:00.040Z to \
                    1970-01-01T00:00:00.090Z, 1970-01-01T00:00:00.120Z";
    assert_eq!(later, expected);
}

#[test]
fn times_to_live_are_what_is_left_at_the_revision() {
    let folder = tempfile::tempdir().unwrap();
    history(folder.path(), None);
    let catalog = catalog(folder.path(), None);
    let left = |sequence: u64| {
        let (chain, at) = kept::find(&catalog, TENANT, None, Moment::Revision(revision(sequence))).unwrap();
        let mut lines = String::new();
        let composition = Composition::open(&chain, at).unwrap();
        composition.lines(0).unwrap().read_to_string(&mut lines).unwrap();
        let values = lines
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        values
            .filter(|line| line["key"] == "t")
            .map(|line| line["ttl_ms"].as_u64().unwrap())
            .next()
    };
    assert_eq!((left(4), left(7), left(9)), (Some(460), Some(430), Some(410)));
}

/// An interrupted restore goes on in the middle of a line.
#[test]
fn composed_lines_are_read_from_any_place() {
    let folder = tempfile::tempdir().unwrap();
    history(folder.path(), None);
    let catalog = catalog(folder.path(), None);
    let (chain, at) = kept::find(&catalog, TENANT, Some("3"), Moment::Newest).unwrap();
    let read = |skip: u64| {
        let mut text = String::new();
        let lines = Composition::open(&chain, at).unwrap().lines(skip);
        lines.unwrap().read_to_string(&mut text).unwrap();
        text
    };
    let whole = read(0);
    assert_eq!(whole.len() as u64, summary(&chain, at).bytes);
    for skip in 0..whole.len() {
        assert_eq!(read(skip as u64), whole[skip..]);
    }
}

#[test]
fn missing_exchanged_and_damaged_links_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = history(folder.path(), None);
    let find = || kept::find(&catalog(folder.path(), None), TENANT, Some("3"), Moment::Newest);
    let error = |found: Result<(Chain, Point), crate::exit::CommandError>| found.unwrap_err().text().to_owned();
    let two = folder.path().join("2");
    let aside = folder.path().join("aside");
    std::fs::rename(&two, &aside).unwrap();
    let missing = error(find());
    assert!(
        missing.starts_with("backup 3 builds on backup 2, which is missing at"),
        "{missing}"
    );
    std::fs::rename(&aside, &two).unwrap();
    // A backup of the same name, made anew.
    let place = Place::Folder(folder.path().to_owned());
    model.back_up(&place, None, "2", 8, None);
    let other = error(find());
    assert!(
        other.contains("whose manifest is not the one that it was made from"),
        "{other}"
    );
    history(folder.path(), None);
    let part = two.join(TENANT).join("000001.jsonl.zst");
    let mut bytes = std::fs::read(&part).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    let (chain, _) = find().unwrap();
    let damaged = chain.verify().unwrap_err();
    assert!(
        damaged.text().contains("2/acme/000001.jsonl.zst: its bytes differ"),
        "{}",
        damaged.text()
    );
}

/// Many runs and one key in all of them.
#[test]
fn later_run_wins_over_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().to_owned());
    let mut model = Model::default();
    model.put("a", "0");
    model.back_up(&place, None, "00", 1, None);
    for number in 1..20 {
        model.put("a", &number.to_string());
        model.put(&format!("k{number}"), "v");
        let base = catalog(folder.path(), None).find(None).unwrap();
        model.back_up(
            &place,
            None,
            &format!("{number:02}"),
            model.events.len() as u64,
            Some(&base),
        );
    }
    let (chain, at) = kept::find(&catalog(folder.path(), None), TENANT, None, Moment::Newest).unwrap();
    assert_eq!(chain.links.len(), 20);
    let composed = summary(&chain, at);
    assert_eq!((composed.lasting_keys, composed.content), model.summary(39));
}
