//! Bearer token of a client, and where it comes from.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use stead_types::{Error, ErrorKind};
use tokio::time::Instant;
use tonic::{Request, Status, metadata::AsciiMetadataValue, service::Interceptor};

/// Interval at which a file is read again: whoever renews tokens replaces the file before the old one ends.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// Longest token.
const TOKEN_LEN_MAX: usize = 8 << 10;

/// Source of the token that goes with each call; it never appears in `Debug` output.
#[derive(Clone, Default)]
pub struct TokenSource(Option<Arc<Source>>);

struct Source {
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

struct Known {
    header: AsciiMetadataValue,
    /// When the file was read last.
    read: Instant,
    /// Number of different tokens so far.
    generation: u64,
}

impl TokenSource {
    /// Returns a source of one token.
    ///
    /// # Errors
    ///
    /// `INVALID`, where the text is no token.
    pub fn text(token: &str) -> Result<Self, Error> {
        Ok(Self::of(None, header(token).ok_or_else(|| invalid("the token"))?))
    }

    /// Returns a source that reads its token from a file, again and again.
    ///
    /// # Errors
    ///
    /// `INVALID`, where the file cannot be read or holds no token.
    pub fn file(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let header = read(&path)?;
        Ok(Self::of(Some(path), header))
    }

    fn of(file: Option<PathBuf>, header: AsciiMetadataValue) -> Self {
        Self(Some(Arc::new(Source {
            file,
            known: Mutex::new(Known {
                header,
                read: Instant::now(),
                generation: 1,
            }),
        })))
    }

    /// Returns the header of the newest token and the number of tokens so far. A file that cannot be read leaves the last
    /// token in use.
    fn current(&self) -> Option<(AsciiMetadataValue, u64)> {
        let source = self.0.as_ref()?;
        let mut known = source.known.lock();
        if let Some(file) = source.file.as_ref().filter(|_| known.read.elapsed() >= RELOAD_INTERVAL) {
            known.read = Instant::now();
            match read(file) {
                Ok(header) if header != known.header => {
                    known.header = header;
                    known.generation += 1;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "token not read again: the last one stays in use"),
            }
        }
        Some((known.header.clone(), known.generation))
    }

    /// Returns the number of different tokens so far: streams that were opened with an earlier one are opened anew when it
    /// ends.
    pub(crate) fn generation(&self) -> u64 {
        self.current().map_or(0, |(_, generation)| generation)
    }
}

fn read(path: &Path) -> Result<AsciiMetadataValue, Error> {
    let text = fs::read_to_string(path).map_err(|error| {
        let message = format!("token_file: cannot read {}: {error}", path.display());
        Error::new(
            ErrorKind::Invalid {
                field: "token_file".into(),
            },
            message,
        )
    })?;
    header(text.trim()).ok_or_else(|| invalid(&format!("{}", path.display())))
}

fn invalid(what: &str) -> Error {
    let message =
        format!("token_file: {what} is no token: printable ASCII without spaces, at most {TOKEN_LEN_MAX} bytes");
    Error::invalid("token_file", message)
}

fn header(token: &str) -> Option<AsciiMetadataValue> {
    let is_token =
        !token.is_empty() && token.len() <= TOKEN_LEN_MAX && token.bytes().all(|byte| byte.is_ascii_graphic());
    let mut header: AsciiMetadataValue = format!("Bearer {token}").parse().ok().filter(|_| is_token)?;
    header.set_sensitive(true);
    Some(header)
}

impl Interceptor for TokenSource {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some((header, _)) = self.current() {
            request.metadata_mut().insert("authorization", header);
        }
        Ok(request)
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "token" } else { "no token" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn token_of_file_is_read_again_and_never_shown() {
        let folder = std::env::temp_dir().join(format!("stead-token-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("token");
        fs::write(&file, "first\n").unwrap();
        let source = TokenSource::file(&file).unwrap();
        let sent = || {
            source
                .current()
                .map(|(header, number)| (header.to_str().unwrap().to_owned(), number))
        };
        assert_eq!(sent(), Some(("Bearer first".into(), 1)));
        fs::write(&file, "second").unwrap();
        assert_eq!(sent().unwrap().1, 1, "not read at every call");
        tokio::time::advance(RELOAD_INTERVAL).await;
        assert_eq!(sent(), Some(("Bearer second".into(), 2)));
        fs::write(&file, "").unwrap();
        tokio::time::advance(RELOAD_INTERVAL).await;
        assert_eq!(sent().unwrap().1, 2, "the last one stays");
        let header = source.current().unwrap().0;
        assert!(!format!("{source:?} {header:?}").contains("second"));
        for invalid in ["", "a b", "a\nb"] {
            assert!(TokenSource::text(invalid).is_err(), "{invalid:?}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
