//! PostgreSQL: a primary and one synchronous standby, each write fsynced by both; one connection for each caller.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use futures::{FutureExt, future::BoxFuture};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls, Statement};

use super::{Caller, System, Watcher};
use crate::{
    processes::{self, Processes, Usage, eventually},
    work::{self, COUNTERS, KEYS, Request, SCANNED, Values, Work},
};

const PRIMARY: u16 = 32_500;
const STANDBY: u16 = 32_501;
/// Folders in which Debian's packages have the programs.
const FOLDERS: [&str; 3] = [
    "/usr/lib/postgresql/17/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/15/bin",
];
/// User that runs the servers where the load generator is root, because they refuse that.
const USER: &str = "postgres";
const CONNECTIONS_MAX: &str = "300";

const TABLES: &str = "create table items (key text primary key, value bytea not null); \
    create table counters (key text primary key, value bigint not null)";
const PUT: &str = "insert into items select * from unnest($1::text[], $2::bytea[]) \
    on conflict (key) do update set value = excluded.value";
const PUT_ALL_IF_FIRST: &str = "insert into items select * from unnest($1::text[], $2::bytea[]) \
    where exists (select from items where key = $1[1]) on conflict (key) do update set value = excluded.value";
const PUT_ONE: &str = "insert into items values ($1, $2) on conflict (key) do update set value = excluded.value";
const GET: &str = "select value from items where key = $1";
const INCREMENT: &str = "update counters set value = value + 1 where key = $1 returning value";
const SCAN: &str = "select key, value from items where key >= $1 order by key limit 100";

/// Running servers.
pub(super) struct Postgres {
    processes: Processes,
    version: String,
    values: Values,
    _folder: TempDir,
}

impl Postgres {
    pub(super) async fn start() -> Result<Self> {
        let program = processes::find("postgres", &FOLDERS)?;
        let folder = tempfile::tempdir()?;
        own(folder.path())?;
        let mut processes = Processes::default();
        let primary = folder.path().join("primary");
        run(Command::new(beside(&program, "initdb")?)
            .args([
                "--auth",
                "trust",
                "--username",
                USER,
                "--locale",
                "C",
                "--encoding",
                "UTF8",
                "--pgdata",
            ])
            .arg(&primary))?;
        let settings = [
            "synchronous_standby_names=standby",
            "synchronous_commit=on",
            "shared_buffers=256MB",
            "max_wal_size=4GB",
        ];
        // Without its standby nothing commits, so that the tables come after it.
        serve(&mut processes, &program, &primary, PRIMARY, &settings)?;
        let standby = folder.path().join("standby");
        let copy = async || {
            let _ = fs::remove_dir_all(&standby);
            run(Command::new(beside(&program, "pg_basebackup")?)
                .args([
                    "--dbname",
                    "host=127.0.0.1 port=32500 user=postgres application_name=standby",
                ])
                .args(["--write-recovery-conf", "--checkpoint=fast", "--pgdata"])
                .arg(&standby))
        };
        eventually("a copy of the primary", copy).await?;
        serve(&mut processes, &program, &standby, STANDBY, &["shared_buffers=256MB"])?;
        let create = async || Ok(connect(PRIMARY).await?.batch_execute(TABLES).await?);
        eventually("tables", create).await?;
        let read = async || Ok(connect(STANDBY).await?.prepare(GET).await.map(drop)?);
        eventually("the standby's tables", read).await?;
        Ok(Self {
            processes,
            version: processes::version(&program)?,
            values: Values::new(),
            _folder: folder,
        })
    }

    async fn caller_of(&self) -> Result<PostgresCaller> {
        let primary = connect(PRIMARY).await?;
        let standby = connect(STANDBY).await?;
        Ok(PostgresCaller {
            put_one: primary.prepare(PUT_ONE).await?,
            put: primary.prepare(PUT).await?,
            put_all_if_first: primary.prepare(PUT_ALL_IF_FIRST).await?,
            get: primary.prepare(GET).await?,
            get_stale: standby.prepare(GET).await?,
            increment: primary.prepare(INCREMENT).await?,
            scan: primary.prepare(SCAN).await?,
            primary,
            standby,
            values: self.values.clone(),
            sent: 0,
        })
    }
}

/// Returns the path of a program that is installed beside another one.
fn beside(program: &Path, name: &str) -> Result<PathBuf> {
    let real = fs::canonicalize(program)?;
    let folder = real
        .parent()
        .context("a program is in a folder")?
        .to_string_lossy()
        .into_owned();
    let mut folders = vec![folder.as_str()];
    folders.extend(FOLDERS);
    processes::find(name, &folders)
}

/// Returns the user and group of the servers, where the load generator is root.
fn server_user() -> Result<Option<(u32, u32)>> {
    let id = |option| -> Result<u32> {
        let output = Command::new("id").arg(option).arg(USER).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    };
    let own = Command::new("id").arg("-u").output()?;
    if String::from_utf8(own.stdout)?.trim() != "0" {
        return Ok(None);
    }
    Ok(Some((id("-u")?, id("-g")?)))
}

fn own(folder: &Path) -> Result<()> {
    if let Some((user, group)) = server_user()? {
        chown(folder, Some(user), Some(group))?;
    }
    Ok(())
}

fn as_server(command: &mut Command) -> Result<&mut Command> {
    if let Some((user, group)) = server_user()? {
        command.uid(user).gid(group);
    }
    Ok(command.current_dir("/"))
}

fn run(command: &mut Command) -> Result<()> {
    let output = as_server(command)?.output()?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn serve(processes: &mut Processes, program: &Path, data: &Path, port: u16, settings: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    let port = port.to_string();
    command.args([
        "-p",
        &port,
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        "unix_socket_directories=",
    ]);
    command
        .args(["-c", &format!("max_connections={CONNECTIONS_MAX}"), "-D"])
        .arg(data);
    for setting in settings {
        command.args(["-c", setting]);
    }
    let logs = data.with_extension("log");
    fs::create_dir(&logs)?;
    processes.start(&logs, as_server(&mut command)?)?;
    Ok(())
}

async fn connect(port: u16) -> Result<Client> {
    let address = format!("host=127.0.0.1 port={port} user={USER} dbname=postgres");
    let (client, connection) = tokio_postgres::connect(&address, NoTls).await?;
    // It ends with the client.
    tokio::spawn(connection);
    Ok(client)
}

impl System for Postgres {
    fn description(&self) -> String {
        format!(
            "{}: primary and one synchronous standby, each write fsynced by both",
            self.version
        )
    }

    fn does(&self, work: Work) -> bool {
        !matches!(work, Work::Watch | Work::Echo | Work::Sync)
    }

    fn fill(&self) -> BoxFuture<'_, Result<()>> {
        async {
            let mut caller = self.caller_of().await?;
            for first in (0..KEYS).step_by(10_000) {
                caller.run(Request::PutBatch((first..first + 10_000).collect())).await?;
            }
            let names: Vec<String> = (0..COUNTERS).map(work::counter_name).collect();
            let counters = "insert into counters select name, 0 from unnest($1::text[]) name";
            caller.primary.execute(counters, &[&names]).await?;
            caller.primary.batch_execute("vacuum analyze").await?;
            Ok(())
        }
        .boxed()
    }

    fn caller(&self, _: Instant) -> BoxFuture<'_, Result<Box<dyn Caller>>> {
        async { Ok(Box::new(self.caller_of().await?) as Box<dyn Caller>) }.boxed()
    }

    fn watcher(&self, _: Instant) -> BoxFuture<'_, Result<Box<dyn Watcher>>> {
        async { Err(super::unsupported()) }.boxed()
    }

    fn usage(&self) -> Result<Usage> {
        processes::usage(&self.processes.ids())
    }
}

/// Caller with prepared statements.
struct PostgresCaller {
    primary: Client,
    standby: Client,
    put_one: Statement,
    put: Statement,
    put_all_if_first: Statement,
    get: Statement,
    get_stale: Statement,
    increment: Statement,
    scan: Statement,
    values: Values,
    sent: u64,
}

impl PostgresCaller {
    async fn run(&mut self, request: Request) -> Result<()> {
        self.sent += 1;
        let value = self.values.get(self.sent);
        match request {
            Request::Put(key) => {
                let name = work::key_name(key);
                self.primary.execute(&self.put_one, &[&name, &&value[..]]).await?;
            }
            Request::PutBatch(keys) => self.put_all(&self.put, &keys).await?,
            Request::Txn(keys) => self.put_all(&self.put_all_if_first, &keys).await?,
            Request::Get(key) => {
                self.primary.query_one(&self.get, &[&work::key_name(key)]).await?;
            }
            Request::GetStale(key) => {
                self.standby.query_one(&self.get_stale, &[&work::key_name(key)]).await?;
            }
            Request::Increment(counter) => {
                self.primary
                    .query_one(&self.increment, &[&work::counter_name(counter)])
                    .await?;
            }
            Request::Scan(from) => {
                let rows = self.primary.query(&self.scan, &[&work::key_name(from)]).await?;
                ensure!(rows.len() == SCANNED, "a scan returned {} keys", rows.len());
            }
            Request::PutStamped(_) | Request::Echo | Request::Sync => return Err(super::unsupported()),
        }
        Ok(())
    }

    async fn put_all(&self, statement: &Statement, keys: &[u64]) -> Result<()> {
        let names: Vec<String> = keys.iter().map(|key| work::key_name(*key)).collect();
        let values: Vec<_> = keys.iter().map(|key| self.values.get(key + self.sent)).collect();
        let values: Vec<&[u8]> = values.iter().map(|value| &value[..]).collect();
        let done = self.primary.execute(statement, &[&names, &values]).await?;
        ensure!(done == keys.len() as u64, "{done} of {} keys were written", keys.len());
        Ok(())
    }
}

impl Caller for PostgresCaller {
    fn call(&mut self, request: Request) -> BoxFuture<'_, Result<()>> {
        self.run(request).boxed()
    }
}
