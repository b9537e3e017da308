//! Prefix of an S3-compatible bucket, by `object_store`.
//!
//! A failure that passes is tried again by the library, for a bounded time; one that breaks off in the middle of an object
//! goes on from there. Then the command ends, and what it had written is no backup, as the manifest is missing.

use std::{
    fmt,
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use futures::TryStreamExt;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};

use crate::exit::{Code, CommandError};

/// Tries of one request after the first.
const RETRIES_MAX: usize = 5;
/// Time in which a request is tried again.
const RETRY_TIME_MAX: Duration = Duration::from_secs(60);
/// Time of one request: a part has to pass a slow link in it.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// Bytes that are read from an object at once.
const BLOCK_LEN: u64 = 4 << 20;

/// Options for buckets.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct BucketArgs {
    /// Address of an S3-compatible server, such as https://minio.example:9000; else Amazon's
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL")]
    pub(super) endpoint_url: Option<String>,
}

impl BucketArgs {
    /// Returns what the environment says.
    pub(super) fn from_env() -> Self {
        Self {
            endpoint_url: std::env::var("AWS_ENDPOINT_URL").ok(),
        }
    }
}

/// Prefix of a bucket.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    store: Arc<AmazonS3>,
    /// Name of the bucket and the prefix, as `--to` has them.
    name: String,
    prefix: Path,
}

impl Bucket {
    /// Takes credentials and region from the environment, as other tools for S3 do.
    ///
    /// # Errors
    ///
    /// An option, or a variable, is invalid.
    pub(super) fn new(name: &str, options: &BucketArgs) -> Result<Self, CommandError> {
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIME_MAX,
        };
        Self::of(AmazonS3Builder::from_env(), retry, name, options)
    }

    pub(super) fn of(
        builder: AmazonS3Builder,
        retry: RetryConfig,
        name: &str,
        options: &BucketArgs,
    ) -> Result<Self, CommandError> {
        stead_tls::install_default_provider();
        let (bucket, prefix) = name.split_once('/').unwrap_or((name, ""));
        if bucket.is_empty() {
            let error = CommandError::new(Code::Usage, format!("s3://{name} names no bucket"));
            return Err(error.hint("s3://BUCKET/PREFIX"));
        }
        let client = ClientOptions::new().with_timeout(REQUEST_TIME_MAX);
        let mut builder = builder
            .with_bucket_name(bucket)
            .with_retry(retry)
            // Not every server has it.
            .with_disable_bulk_delete(true)
            .with_client_options(client);
        if let Some(endpoint) = &options.endpoint_url {
            // Whoever writes http:// wants no TLS.
            let allow_http = endpoint.starts_with("http://");
            builder = builder.with_endpoint(endpoint).with_allow_http(allow_http);
        }
        let store = builder.build().map_err(|error| {
            let error = CommandError::new(Code::Usage, format!("s3://{name}: {}", text(&error)));
            error.hint(ENVIRONMENT)
        })?;
        Ok(Self {
            store: Arc::new(store),
            name: name.trim_end_matches('/').to_owned(),
            prefix: Path::from(prefix),
        })
    }

    pub(super) fn folders(&self) -> Result<Vec<String>, CommandError> {
        let listed = wait(self.store.list_with_delimiter(Some(&self.prefix)));
        let listed = listed.map_err(|error| {
            // The error of a listing does not say that the credentials are refused; that of an object does.
            let of_object = wait(self.store.get(&self.path(PROBE))).err();
            let is_refusal =
                |error: &Error| matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. });
            self.failed("", &of_object.filter(is_refusal).unwrap_or(error))
        })?;
        let name = |path: &Path| path.filename().map(str::to_owned);
        Ok(listed.common_prefixes.iter().filter_map(name).collect())
    }

    pub(super) fn read(&self, file: &str) -> Result<Vec<u8>, CommandError> {
        let path = self.path(file);
        let read = wait(async { self.store.get(&path).await?.bytes().await });
        read.map(Vec::from).map_err(|error| self.failed(file, &error))
    }

    pub(super) fn open(&self, file: &str, len: u64) -> impl Read + Send + use<> {
        ObjectReader {
            bucket: self.clone(),
            file: file.to_owned(),
            len,
            offset: 0,
            block: bytes::Bytes::new(),
        }
    }

    pub(super) fn write(&self, file: &str, bytes: Vec<u8>) -> Result<(), CommandError> {
        let path = self.path(file);
        let put = wait(self.store.put(&path, bytes.into()));
        put.map(|_| ()).map_err(|error| self.failed(file, &error))
    }

    pub(super) fn remove(&self, file: &str) -> Result<(), CommandError> {
        match wait(self.store.delete(&self.path(file))) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(file, &error)),
        }
    }

    pub(super) fn remove_folder(&self, name: &str) -> Result<(), CommandError> {
        let folder = self.path(name);
        let removed = wait(async {
            let files: Vec<_> = self.store.list(Some(&folder)).try_collect().await?;
            for file in files {
                self.store.delete(&file.location).await?;
            }
            Ok(())
        });
        removed.map_err(|error| self.failed(name, &error))
    }

    pub(super) fn address(&self, file: &str) -> String {
        format!("s3://{}/{file}", self.name)
    }

    fn path(&self, file: &str) -> Path {
        // Names of tenants and backups need no escapes.
        file.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    fn failed(&self, file: &str, error: &Error) -> CommandError {
        let (code, what) = describe(error);
        let failed = CommandError::new(code, format!("{}: {what}", self.address(file)));
        if code == Code::NotAllowed {
            return failed.hint(ENVIRONMENT);
        }
        failed
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Hint about what a bucket needs.
const ENVIRONMENT: &str = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION have the credentials and the region, \
                           --endpoint-url the server";

/// Object that need not exist.
const PROBE: &str = "probe";

fn describe(error: &Error) -> (Code, String) {
    if let Error::NotFound { .. } = error {
        return (Code::NotFound, "it is not there".to_owned());
    }
    if let Error::PermissionDenied { .. } = error {
        return (Code::NotAllowed, "the bucket refuses the credentials (403)".to_owned());
    }
    if let Error::Unauthenticated { .. } = error {
        let what = "the bucket does not know the credentials (401)";
        return (Code::NotAllowed, what.to_owned());
    }
    (Code::Failed, text(error))
}

/// Reader of an object in bounded memory.
struct ObjectReader {
    bucket: Bucket,
    file: String,
    len: u64,
    offset: u64,
    block: bytes::Bytes,
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() && self.offset < self.len {
            let range = self.offset..(self.offset + BLOCK_LEN).min(self.len);
            let wanted = range.end - range.start;
            let path = self.bucket.path(&self.file);
            let block = wait(self.bucket.store.get_range(&path, range));
            let block = block.map_err(|error| io::Error::other(describe(&error).1))?;
            self.offset += block.len() as u64;
            if (block.len() as u64) < wanted {
                // The object is shorter than it was: what is compared with it finds that.
                self.len = self.offset;
            }
            self.block = block;
        }
        let len = buffer.len().min(self.block.len());
        buffer[..len].copy_from_slice(&self.block.split_to(len));
        Ok(len)
    }
}

/// Returns an error with its causes, which object_store hides behind "Generic S3 error".
fn text(error: &Error) -> String {
    let mut causes = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many causes are part of the text before.
        if !causes.iter().any(|text| text.contains(&cause_text)) {
            causes.push(cause_text);
        }
        source = cause.source();
    }
    causes.join(": ")
}

/// Waits for a request; the other threads of the runtime go on.
fn wait<T>(request: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(request))
}
