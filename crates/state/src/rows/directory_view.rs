//! Rows of a node's directory view: `DIRECTORY_VIEW`, then the object's identity; `DIRECTORY_VIEW`, `0` holds the
//! version.
//!
//! A node writes the changes of a message and the version they lead to in one batch, so that after a restart without
//! the directory it still knows every route, as of one version.

use bytes::Bytes;
use stead_types::{DirectoryVersion, Incarnation};

use super::{Order, Rows, RowsMut, Unreadable, kind, prefix::prefix_end};
use crate::{
    codec::{Reader, Writer},
    directory::{DirectoryChange, DirectoryView},
};

const VERSION: u8 = 0;

fn key(rest: &[u8]) -> Bytes {
    let mut key = Writer::with_capacity(1 + rest.len());
    key.u8(kind::DIRECTORY_VIEW).raw(rest);
    key.finish()
}

/// Writes a change.
pub fn write(rows: &mut dyn RowsMut, change: &DirectoryChange) {
    if change.is_removal() {
        rows.delete(key(&change.identity()));
    } else {
        rows.put(key(&change.identity()), change.encode());
    }
}

/// Writes the version that the changes lead to.
pub fn write_version(rows: &mut dyn RowsMut, version: DirectoryVersion) {
    let mut value = Writer::with_capacity(12);
    value.u32(version.incarnation.0).u64(version.index);
    rows.put(key(&[VERSION]), value.finish());
}

/// Removes every row: a snapshot replaces them, in the same batch.
pub fn clear<R: RowsMut>(rows: &mut R) -> Result<(), Unreadable> {
    let start = [kind::DIRECTORY_VIEW];
    let keys: Result<Vec<Bytes>, Unreadable> = rows
        .range(&start[..]..&prefix_end(&start), Order::Ascending)
        .map(|row| row.map(|(key, _)| key))
        .collect();
    keys?.into_iter().for_each(|key| rows.delete(key));
    Ok(())
}

/// Reads a view; an empty one if there are no rows.
pub fn load(rows: &dyn Rows) -> Result<DirectoryView, Unreadable> {
    let mut view = DirectoryView::default();
    let start = [kind::DIRECTORY_VIEW];
    for row in rows.range(&start[..]..&prefix_end(&start), Order::Ascending) {
        let (key, value) = row?;
        if key.get(1) == Some(&VERSION) {
            let mut r = Reader::new(value, "view version");
            let incarnation = Incarnation(r.u32()?);
            let index = r.u64()?;
            view.reach(DirectoryVersion { incarnation, index });
        } else {
            view.apply(DirectoryChange::decode(value)?);
        }
    }
    Ok(view)
}
