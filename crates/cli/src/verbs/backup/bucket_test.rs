//! Tests of buckets against a small S3-compatible server that can refuse, fail, and break off in the middle.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use object_store::{RetryConfig, aws::AmazonS3Builder};
use stead_client::{Item, Revision};
use stead_types::TenantTime;

use super::{
    bucket::{Bucket, BucketArgs},
    catalog::Catalog,
    files::Sink,
    manifest::{Manifest, TenantBackup},
    parts::{KeysWriter, PartsWriter},
    place::Place,
};
use crate::exit::Code;

/// Fault of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fault {
    #[default]
    None,
    /// Answers with this status.
    Status(u16),
    /// Sends so many objects by half, and closes the connection.
    Half(u32),
    /// Takes half of an object, and closes the connection.
    HalfTaken,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    fault: Fault,
    requests: u32,
}

/// Server with one bucket, `b`.
#[derive(Clone)]
struct Server {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            state: Arc::default(),
        };
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that is gone is no fault of the server.
                let _ = serving.answer(&stream);
            }
        });
        server
    }

    fn place(&self) -> Place {
        let builder = AmazonS3Builder::new()
            .with_access_key_id("id")
            .with_secret_access_key("secret");
        let retry = RetryConfig {
            max_retries: 2,
            retry_timeout: Duration::from_secs(5),
            ..RetryConfig::default()
        };
        let options = BucketArgs {
            endpoint_url: Some(self.address.clone()),
        };
        Place::Bucket(Bucket::of(builder, retry, "b/backups", &options).unwrap())
    }

    fn fail(&self, fault: Fault) {
        self.state.lock().unwrap().fault = fault;
    }

    fn keys(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    fn answer(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        let header = |name: &str| {
            let lines = head.iter().filter_map(|line| line.split_once(": "));
            lines
                .filter(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_owned())
                .next()
        };
        let mut state = self.state.lock().unwrap();
        state.requests += 1;
        let len: usize = header("content-length").map_or(0, |len| len.parse().unwrap());
        let mut body = vec![0; if state.fault == Fault::HalfTaken { len / 2 } else { len }];
        reader.read_exact(&mut body)?;
        match state.fault {
            Fault::HalfTaken if len > 0 => return Ok(()),
            Fault::Status(status) => return respond(stream, status, b"", ""),
            Fault::None | Fault::Half(_) | Fault::HalfTaken => {}
        }
        let mut request = head[0].split(' ');
        let (method, target) = (request.next().unwrap(), request.next().unwrap());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let key = path.strip_prefix("/b").unwrap().trim_start_matches('/').to_owned();
        match method {
            "PUT" => {
                state.objects.insert(key, body);
                respond(stream, 200, b"", "ETag: \"1\"\r\n")
            }
            "DELETE" => {
                state.objects.remove(&key);
                respond(stream, 204, b"", "")
            }
            "GET" if key.is_empty() => respond(stream, 200, listing(&state.objects, query).as_bytes(), ""),
            _ => {
                let Some(object) = state.objects.get(&key).cloned() else {
                    return respond(stream, 404, b"", "");
                };
                let range = header("range").map(|range| {
                    let (from, to) = range.trim_start_matches("bytes=").split_once('-').unwrap();
                    let from: usize = from.parse().unwrap();
                    (
                        from,
                        to.parse::<usize>()
                            .map_or(object.len(), |to| (to + 1).min(object.len())),
                    )
                });
                let more = "ETag: \"1\"\r\nLast-Modified: Tue, 01 Dec 2026 00:00:00 GMT\r\n";
                let (status, part, more) = match range {
                    None => (200, &object[..], more.to_owned()),
                    Some((from, to)) => {
                        let range = format!("Content-Range: bytes {from}-{}/{}\r\n", to - 1, object.len());
                        (206, &object[from..to], format!("{more}{range}"))
                    }
                };
                if let Fault::Half(left @ 1..) = &mut state.fault {
                    *left -= 1;
                    return half(stream, status, part, &more);
                }
                respond(stream, status, part, &more)
            }
        }
    }
}

fn respond(stream: &TcpStream, status: u16, body: &[u8], headers: &str) -> std::io::Result<()> {
    send(stream, status, body, body.len(), headers)
}

/// Says the whole length, sends half, and closes the connection.
fn half(stream: &TcpStream, status: u16, body: &[u8], headers: &str) -> std::io::Result<()> {
    send(stream, status, &body[..body.len() / 2], body.len(), headers)
}

fn send(mut stream: &TcpStream, status: u16, body: &[u8], len: usize, headers: &str) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status} S\r\nContent-Length: {len}\r\nConnection: close\r\n{headers}\r\n"
    )?;
    stream.write_all(body)?;
    stream.shutdown(std::net::Shutdown::Write)
}

fn listing(objects: &BTreeMap<String, Vec<u8>>, query: &str) -> String {
    let parameter = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.replace("%2F", "/"))
            .next();
        value.unwrap_or_default()
    };
    let prefix = parameter("prefix");
    let mut folders = std::collections::BTreeSet::new();
    let mut contents = String::new();
    for (key, object) in objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        match key[prefix.len()..].split_once('/') {
            Some((folder, _)) if !parameter("delimiter").is_empty() => {
                folders.insert(format!("{prefix}{folder}/"));
            }
            Some(_) | None => contents.push_str(&format!(
                "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2026-12-01T00:00:00.000Z</LastModified>\
                 <ETag>\"1\"</ETag></Contents>",
                object.len()
            )),
        }
    }
    let folders: String = folders
        .iter()
        .map(|folder| format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"))
        .collect();
    format!("<ListBucketResult>{contents}{folders}<IsTruncated>false</IsTruncated></ListBucketResult>")
}

fn sink(server: &Server) -> Sink {
    Sink {
        place: server.place(),
        id: "one".to_owned(),
        key: None,
    }
}

/// Writes a tenant with values that do not compress, without a manifest.
fn tenant(sink: &Sink) -> Result<TenantBackup, crate::exit::CommandError> {
    let mut writer = KeysWriter::new(PartsWriter::new(sink, "acme".to_owned()));
    for key in 0..100_u32 {
        let value: Vec<u8> = (0..1000).map(|_| rand::random()).collect();
        let item = Item {
            key: format!("{key:03}").into(),
            value: value.into(),
            created: Revision::ZERO,
            modified: Revision::ZERO,
            version: 1,
            expires: None,
        };
        writer.push(&item, TenantTime(0))?;
    }
    let written = writer.finish()?;
    Ok(TenantBackup {
        keys: written.keys,
        bytes: written.bytes,
        parts: written.parts,
        ..TenantBackup::default()
    })
}

fn finished(server: &Server) -> (Manifest, Catalog) {
    let sink = sink(server);
    let mut manifest = Manifest::new("one".to_owned(), "now".to_owned(), None);
    manifest.tenants.insert("acme".to_owned(), tenant(&sink).unwrap());
    manifest.store(&sink).unwrap();
    (manifest, Catalog::new(sink.place, None))
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_in_a_bucket_has_the_files_of_a_folder() {
    let server = Server::start();
    let (_, catalog) = finished(&server);
    let expected = [
        "backups/one/acme/000001.jsonl.zst",
        "backups/one/manifest.json",
        "backups/one/manifest.sha256",
    ];
    assert_eq!(server.keys(), expected);
    let found = catalog.find(None).unwrap();
    let source = found.source(&catalog.place, None);
    let part = &found.tenants["acme"].parts[0];
    source.verify(part).unwrap();
    let mut text = String::new();
    source.open(part).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), 100);
    catalog.place.remove_folder("one").unwrap();
    assert_eq!(server.keys(), [""; 0]);
    assert_eq!(catalog.place.folders().unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bucket_that_answers_403_is_refused_by_name_and_gets_no_manifest() {
    let server = Server::start();
    server.fail(Fault::Status(403));
    let error = tenant(&sink(&server)).unwrap_err();
    assert_eq!(error.code(), Code::NotAllowed);
    let text = "s3://b/backups/one/acme/000001.jsonl.zst: the bucket refuses the credentials (403)";
    assert_eq!(error.text(), text);
    let listed = Catalog::new(server.place(), None).find(None).unwrap_err();
    assert_eq!(listed.code(), Code::NotAllowed);
    assert_eq!(server.keys(), [""; 0]);
    assert_eq!(server.state.lock().unwrap().requests, 3, "a refusal is not tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn bucket_that_fails_is_tried_again_for_a_while() {
    let server = Server::start();
    server.fail(Fault::Status(500));
    let error = tenant(&sink(&server)).unwrap_err();
    assert_eq!(error.code(), Code::Failed);
    assert!(
        error.text().starts_with("s3://b/backups/one/acme/000001.jsonl.zst: "),
        "{}",
        error.text()
    );
    assert_eq!(server.state.lock().unwrap().requests, 3);
}

/// The connection ends in the middle of an upload: there is no object, and the backup is none.
#[tokio::test(flavor = "multi_thread")]
async fn object_that_was_taken_by_half_is_not_there() {
    let server = Server::start();
    server.fail(Fault::HalfTaken);
    tenant(&sink(&server)).unwrap_err();
    assert_eq!(server.keys(), [""; 0]);
    server.fail(Fault::None);
    let nothing = Catalog::new(server.place(), None).find(None).unwrap_err();
    assert_eq!(nothing.text(), "s3://b/backups has no backup");
}

#[tokio::test(flavor = "multi_thread")]
async fn object_that_breaks_off_is_read_on_or_named() {
    let server = Server::start();
    let (manifest, catalog) = finished(&server);
    let source = manifest.source(&catalog.place, None);
    let part = &manifest.tenants["acme"].parts[0];
    server.fail(Fault::Half(1));
    source.verify(part).unwrap();
    server.fail(Fault::Half(1_000));
    let error = source.verify(part).unwrap_err();
    assert!(
        error.text().starts_with("s3://b/backups/one/acme/000001.jsonl.zst: "),
        "{}",
        error.text()
    );
}

/// A bucket that keeps half of an object and says that this is all.
#[tokio::test(flavor = "multi_thread")]
async fn object_of_which_half_is_kept_is_damaged() {
    let server = Server::start();
    let (manifest, catalog) = finished(&server);
    let part = &manifest.tenants["acme"].parts[0];
    let key = format!("backups/one/{}", part.file);
    server
        .state
        .lock()
        .unwrap()
        .objects
        .get_mut(&key)
        .unwrap()
        .truncate(part.len as usize / 2);
    let error = manifest.source(&catalog.place, None).verify(part).unwrap_err();
    assert!(error.text().contains("and was written with"), "{}", error.text());
}
