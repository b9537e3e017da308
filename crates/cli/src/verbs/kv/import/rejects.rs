//! Report of rejected records: JSON lines with the line's number, the reason, and the record.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde_json::json;

/// Most bytes of a record in the report.
pub(super) const RECORD_SHOWN_MAX: usize = 1 << 10;

/// Writer of the report; the file is made with the first entry.
#[derive(Debug)]
pub(super) struct Rejects {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    len: u64,
}

impl Rejects {
    /// Goes on after the first `len` bytes of an earlier attempt's report.
    pub(super) fn resume(path: PathBuf, len: u64) -> io::Result<Self> {
        let mut rejects = Self { path, file: None, len };
        match len {
            0 => match std::fs::remove_file(&rejects.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            },
            _ => {
                let file = OpenOptions::new().write(true).open(&rejects.path)?;
                file.set_len(len)?;
                rejects.file = Some(BufWriter::new(file));
                rejects.seek()?;
            }
        }
        Ok(rejects)
    }

    /// Adds an entry.
    pub(super) fn push(&mut self, line: u64, reason: &str, record: &[u8]) -> io::Result<()> {
        let shown = &record[..record.len().min(RECORD_SHOWN_MAX)];
        let entry = json!({ "line": line, "reason": reason, "record": String::from_utf8_lossy(shown) });
        let text = format!("{entry}\n");
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(BufWriter::new(File::create(&self.path)?)),
        };
        file.write_all(text.as_bytes())?;
        self.len += text.len() as u64;
        Ok(())
    }

    /// Makes the entries so far durable and returns their length.
    pub(super) fn sync(&mut self) -> io::Result<u64> {
        if let Some(file) = &mut self.file {
            file.flush()?;
            file.get_ref().sync_data()?;
        }
        Ok(self.len)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn seek(&mut self) -> io::Result<()> {
        let len = self.len;
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(len))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_goes_on_where_the_progress_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejected");
        let mut rejects = Rejects::resume(path.clone(), 0).unwrap();
        assert!(!path.exists());
        rejects.push(3, "no key", b"a,b").unwrap();
        let len = rejects.sync().unwrap();
        rejects.push(9, "lost with the progress", b"").unwrap();
        rejects.sync().unwrap();
        let mut rejects = Rejects::resume(path.clone(), len).unwrap();
        rejects.push(9, "too long", &[b'x'; 2 * RECORD_SHOWN_MAX]).unwrap();
        rejects.sync().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0], json!({ "line": 3, "reason": "no key", "record": "a,b" }));
        assert_eq!(lines[1]["reason"], "too long");
    }
}
