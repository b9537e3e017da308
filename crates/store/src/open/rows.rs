//! Rows of a node's data directory: opened, or set aside where they are damaged.

use std::{io, sync::Arc};

use stead_types::GroupId;

use super::error::Error;
use crate::{
    background::Background,
    data_dir::{DataDir, DataDirError},
    engine::{self, Engine, Kind},
};

/// Opens the rows; damaged ones are set aside, and empty ones take their place.
pub(super) fn open_rows(dir: &DataDir, kind: Kind, background: &Background) -> Result<Arc<dyn Engine>, Error> {
    let path = dir.rows();
    let open = || {
        let path = path.clone();
        let opened = background.run(None, "opening the rows", move || Ok(engine::open(kind, &path)));
        opened.map_err(|failed| io::Error::other(failed.source)).flatten()
    };
    let opened = match open() {
        Err(error) if engine::is_damage(&error) => {
            set_aside(dir, &error, None)?;
            open()
        }
        opened => opened,
    };
    opened.map_err(|source| Error::Part {
        part: "rows",
        path: path.clone(),
        source,
    })
}

/// Sets damaged rows aside, with a warning; the next opening begins with empty ones.
pub(super) fn set_aside(
    dir: &DataDir,
    error: &(dyn std::error::Error + 'static),
    rebuild_target: Option<(GroupId, u64)>,
) -> Result<(), DataDirError> {
    let kept = dir.set_rows_aside(rebuild_target)?;
    let kept = kept.map_or_else(
        || "deleted, because a rebuild was running".to_owned(),
        |path| path.display().to_string(),
    );
    tracing::warn!(
        error,
        kept,
        "the rows are damaged: they are set aside and rebuilt from the log or from other voters"
    );
    Ok(())
}
