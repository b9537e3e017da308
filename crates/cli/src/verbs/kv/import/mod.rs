//! `stead kv import`: rows of a CSV or JSON lines file, many in flight, resumable after an interruption at any point.

mod columns;
mod display;
mod homes;
mod importer;
mod progress;
mod records;
mod rejects;
mod window;
mod writer;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};
pub(super) use columns::BASE64_SUFFIX;
use serde_json::json;
use stead_client::Client;
use stead_types::{RegionName, TenantName, limits::TXN_STEPS_MAX};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    columns::{ColumnNames, Columns, TenantSource},
    display::Display,
    homes::{Homes, Tenants},
    importer::Importer,
    progress::{Counts, Progress, ProgressFile},
    records::{Position, Records, Shape},
    rejects::Rejects,
    window::Window,
};
use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
    output::{self, Output, OutputTable},
};

/// Most rejected records that a dry run shows.
const REJECTED_SHOWN_MAX: usize = 5;
/// Bytes that are read from the input at once.
const READ_LEN: usize = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// CSV or JSON lines file; -: standard input, which cannot be resumed
    input: PathBuf,
    /// Column, or field of the JSON objects, that is the key
    #[arg(long, value_name = "COLUMN")]
    key: String,
    /// Tenant of all rows
    #[arg(long, required_unless_present = "tenant_column", conflicts_with = "tenant_column")]
    tenant: Option<TenantName>,
    /// Column or field with the tenant's name
    #[arg(long, value_name = "COLUMN")]
    tenant_column: Option<String>,
    /// Write names of tenants in lower case
    #[arg(long, requires = "tenant_column")]
    lowercase: bool,
    /// Column or field that is the value; else the whole record as it stands in the file
    #[arg(long, value_name = "COLUMN")]
    value: Option<String>,
    /// Column or field with the time to live in milliseconds; where it is empty the key does not expire
    #[arg(long, value_name = "COLUMN")]
    ttl: Option<String>,
    /// Text before each key
    #[arg(long, default_value = "")]
    key_prefix: OsString,
    /// Format; else the file's extension says it
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Separator of a CSV file's fields
    #[arg(long, default_value = ",", value_parser = delimiter)]
    delimiter: u8,
    /// CSV file with the columns tenant and home: missing tenants are made there
    #[arg(long, value_name = "FILE")]
    home_map: Option<PathBuf>,
    /// Home of missing tenants that the map does not name
    #[arg(long, value_name = "REGION")]
    home: Option<RegionName>,
    /// Most rows of one tenant that are written as one change
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=TXN_STEPS_MAX as i64))]
    batch: u16,
    /// Batches that are sent at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    in_flight: u16,
    /// How long to try again while nobody can answer
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// File with the progress; else the input's name and `.progress`
    #[arg(long, value_name = "FILE")]
    progress: Option<PathBuf>,
    /// Report of rejected records; else the input's name and `.rejected`
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Forget the progress of an interrupted import and begin anew
    #[arg(long)]
    restart: bool,
    /// Only read and check the input, and show how many rows each tenant would get
    #[arg(long)]
    dry_run: bool,
}

/// Format of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Comma-separated values; the first line names the columns.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        _ if text == "\\t" => Ok(b'\t'),
        [byte] if *byte != b'"' && *byte != b'\n' => Ok(*byte),
        _ => Err("one byte, such as ; or \\t".to_owned()),
    }
}

/// Input, and where reading begins.
struct Input {
    records: Records<Box<dyn BufRead>>,
    columns: Columns,
    /// Length in bytes; 0: unknown.
    len: u64,
    progress: Progress,
    file: Option<ProgressFile>,
}

impl Import {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let input = self.open()?;
        if self.dry_run {
            return dry_run(input, target.output);
        }
        let homes = Homes::read(self.home_map.as_deref(), self.home.clone())?;
        let client = context::connect(target).await?;
        let pace = Pace {
            batch_rows_max: self.batch.into(),
            batches_in_flight_max: self.in_flight.into(),
            patience: self.patience,
        };
        let rejects = self.rejects.clone().unwrap_or_else(|| beside(&self.input, "rejected"));
        let started = Instant::now();
        let (importer, counts) = write(input, Tenants::new(client, homes), rejects, &pace, target.output).await?;
        summarize(counts, &importer, started.elapsed(), target.output)
    }

    /// Opens the input where an earlier attempt has ended.
    fn open(&self) -> Result<Input, CommandError> {
        let unreadable = |error| {
            let path = self.input.display();
            CommandError::new(Code::Usage, format!("{path} cannot be read: {error}"))
        };
        let is_stdin = self.input.as_os_str() == "-";
        let (reader, len): (Box<dyn BufRead>, u64) = if is_stdin {
            (Box::new(BufReader::new(std::io::stdin())), 0)
        } else {
            let file = File::open(&self.input).map_err(unreadable)?;
            let len = file.metadata().map_err(unreadable)?.len();
            (Box::new(BufReader::with_capacity(READ_LEN, file)), len)
        };
        let mut records = Records::new(reader, Shape::JsonLines, Position::default());
        let columns = match self.format()? {
            Format::Jsonl => Columns::of_json(self.names()),
            Format::Csv => {
                let header = records.header(self.delimiter).map_err(unreadable)?;
                let header = header.map_err(|why| CommandError::new(Code::Usage, format!("line 1: {why}")))?;
                Columns::of_csv(self.names(), &header)?
            }
        };
        let start = records.position();
        let file = (!is_stdin).then(|| self.progress.clone().unwrap_or_else(|| beside(&self.input, "progress")));
        let file = file.map(ProgressFile::new);
        let progress = match &file {
            Some(file) => self.load(file, start)?,
            None => Progress::begin(String::new(), start),
        };
        if progress.finished != start {
            let rest = at(&self.input, progress.finished).map_err(unreadable)?;
            records.restart(rest, progress.finished);
        }
        Ok(Input {
            records,
            columns,
            len,
            progress,
            file,
        })
    }

    /// Loads the progress of an earlier attempt, or begins anew.
    fn load(&self, file: &ProgressFile, start: Position) -> Result<Progress, CommandError> {
        let unusable = |error| CommandError::new(Code::Failed, format!("{}: {error}", file.path().display()));
        let identity = progress::identity(&self.input, &self.identity()).map_err(unusable)?;
        if self.restart && !self.dry_run {
            file.remove().map_err(unusable)?;
        }
        let is_wanted = !self.restart && !self.dry_run;
        let loaded = if is_wanted { file.load(&identity)? } else { None };
        Ok(loaded.unwrap_or_else(|| Progress::begin(identity, start)))
    }

    /// Returns the options that decide what is written.
    fn identity(&self) -> String {
        format!("{:?} {:?} {}", self.names(), self.format, self.delimiter)
    }

    fn names(&self) -> ColumnNames {
        let column = || TenantSource::Column(self.tenant_column.clone().unwrap_or_default());
        ColumnNames {
            key: self.key.clone(),
            tenant: self.tenant.clone().map_or_else(column, TenantSource::Fixed),
            value: self.value.clone(),
            ttl: self.ttl.clone(),
            lowercase: self.lowercase,
            key_prefix: self.key_prefix.clone().into_vec(),
        }
    }

    fn format(&self) -> Result<Format, CommandError> {
        let extension = self.input.extension().and_then(|extension| extension.to_str());
        match (self.format, extension) {
            (Some(format), _) => Ok(format),
            (None, Some("csv" | "tsv")) => Ok(Format::Csv),
            (None, Some("jsonl" | "ndjson")) => Ok(Format::Jsonl),
            (None, _) => {
                let path = self.input.display();
                let error = CommandError::new(Code::Usage, format!("--format: the name {path} does not say it"));
                Err(error.hint("--format csv or --format jsonl"))
            }
        }
    }
}

/// How much is sent at once, and for how long.
struct Pace {
    batch_rows_max: usize,
    batches_in_flight_max: usize,
    patience: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            batch_rows_max: 128,
            batches_in_flight_max: 32,
            patience: Duration::from_secs(120),
        }
    }
}

/// Writes the rows of an input; returns the importer and the counts of the whole.
async fn write(
    input: Input,
    tenants: Tenants,
    rejects: PathBuf,
    pace: &Pace,
    output: Output,
) -> Result<(Importer, Counts), CommandError> {
    let rejects = Rejects::resume(rejects, input.progress.rejects_len)
        .map_err(|error| CommandError::new(Code::Failed, format!("--rejects: {error}")))?;
    let is_resumed = input.progress.finished.record > 0 || input.progress.sent_below > 0;
    if is_resumed && output != Output::Json {
        eprintln!("goes on after record {}", input.progress.finished.record);
    }
    let stop = CancellationToken::new();
    tokio::spawn(cancel_at_interrupt(stop.clone()));
    let mut records = input.records;
    let mut importer = Importer {
        columns: input.columns,
        tenants,
        window: Window::new(pace.batch_rows_max),
        taken: input.progress.finished,
        rejects,
        display: Display::new(output, input.len, &input.progress),
        resumed_below: input.progress.sent_below,
        progress: input.progress,
        file: input.file,
        batches_in_flight_max: pace.batches_in_flight_max,
        patience: pace.patience,
        in_flight: JoinSet::new(),
        outcomes: BTreeMap::new(),
        stored: Instant::now(),
        stop,
    };
    match importer.run(&mut records).await {
        Ok(counts) => Ok((importer, counts)),
        Err(error) => Err(to_be_resumed(error, &importer)),
    }
}

/// Lines of an export that are written to one tenant.
pub(in crate::verbs) struct Rows {
    /// Identity of the lines and the tenant: progress of others is refused.
    pub(in crate::verbs) identity: String,
    /// Tenant that exists.
    pub(in crate::verbs) tenant: TenantName,
    /// Bytes of the lines.
    pub(in crate::verbs) len: u64,
    /// Opens the lines after so many bytes.
    pub(in crate::verbs) open: Box<dyn Fn(u64) -> std::io::Result<Box<dyn BufRead>>>,
    /// File with the progress.
    pub(in crate::verbs) progress: PathBuf,
}

/// Writes the lines of an export to a tenant; goes on where an interrupted attempt has ended.
///
/// # Errors
///
/// What ended it early, or that a row was rejected.
pub(in crate::verbs) async fn write_rows(client: &Client, rows: Rows, output: Output) -> Result<(), CommandError> {
    let unreadable = |error| CommandError::new(Code::Failed, format!("the rows cannot be read: {error}"));
    let names = ColumnNames {
        key: "key".to_owned(),
        tenant: TenantSource::Fixed(rows.tenant),
        value: Some("value".to_owned()),
        ttl: Some("ttl_ms".to_owned()),
        lowercase: false,
        key_prefix: Vec::new(),
    };
    let rejects = rows.progress.with_extension("rejected");
    let file = ProgressFile::new(rows.progress);
    let loaded = file.load(&rows.identity)?;
    let progress = loaded.unwrap_or_else(|| Progress::begin(rows.identity, Position::default()));
    let reader = (rows.open)(progress.finished.offset).map_err(unreadable)?;
    let input = Input {
        records: Records::new(reader, Shape::JsonLines, progress.finished),
        columns: Columns::of_json(names),
        len: rows.len,
        progress,
        file: Some(file),
    };
    let tenants = Tenants::new(client.clone(), Homes::default());
    let (importer, counts) = write(input, tenants, rejects, &Pace::default(), output).await?;
    match counts.rejected {
        0 => Ok(()),
        rejected => Err(rejected_error(rejected, &importer)),
    }
}

/// Opens a file at a place.
fn at(path: &Path, position: Position) -> std::io::Result<Box<dyn BufRead>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(position.offset))?;
    Ok(Box::new(BufReader::with_capacity(READ_LEN, file)))
}

/// Returns the path of a file beside the input.
fn beside(input: &Path, extension: &str) -> PathBuf {
    match input.as_os_str() == "-" {
        true => PathBuf::from(format!("import.{extension}")),
        false => input.with_added_extension(extension),
    }
}

/// Ends the import at an interrupt, once batches on their way are answered; a second one does not wait for that.
async fn cancel_at_interrupt(stop: CancellationToken) {
    while tokio::signal::ctrl_c().await.is_ok() {
        if stop.is_cancelled() {
            std::process::exit(Code::Interrupted as i32);
        }
        stop.cancel();
    }
}

/// Says how an import that has ended early goes on.
fn to_be_resumed(error: CommandError, importer: &Importer) -> CommandError {
    let progress = &importer.progress;
    let done = progress.counts.written + progress.counts.unchanged;
    let error = error.map_message(|message| format!("the import stopped after {done} rows: {message}"));
    match &importer.file {
        Some(file) => error.hint(format!(
            "the same command goes on from there: {} has the progress",
            file.path().display()
        )),
        None => {
            error.hint("standard input cannot be resumed: import a file, or begin anew, which writes the rows again")
        }
    }
}

fn summarize(counts: Counts, importer: &Importer, took: Duration, format: Output) -> Result<(), CommandError> {
    let created = importer.tenants.created();
    let rows = counts.written + counts.unchanged;
    if format == Output::Json {
        output::json(&json!({
            "written": counts.written.to_string(),
            "unchanged": counts.unchanged.to_string(),
            "rejected": counts.rejected.to_string(),
            "tenants_created": created.to_string(),
            "seconds": took.as_secs_f64(),
        }))?;
    } else {
        let unchanged = match counts.unchanged {
            0 => String::new(),
            count => format!(", {count} of them were there already"),
        };
        let created = output::count(created, "tenant");
        output::line(&format!(
            "{rows} rows in {:.1} s{unchanged}; {created} made",
            took.as_secs_f64()
        ))?;
    }
    match counts.rejected {
        0 => Ok(()),
        rejected => Err(rejected_error(rejected, importer)),
    }
}

fn rejected_error(rejected: u64, importer: &Importer) -> CommandError {
    let rejected = output::count(rejected, "record");
    let error = CommandError::new(Code::Failed, format!("{rejected} rejected, the others are written"));
    error.hint(format!(
        "{} has each with its reason",
        importer.rejects.path().display()
    ))
}

/// Counts the rows of each tenant, and shows the first records that would be rejected.
fn dry_run(mut input: Input, format: Output) -> Result<(), CommandError> {
    let unreadable = |error| CommandError::new(Code::Failed, format!("the input cannot be read: {error}"));
    let mut tenants = BTreeMap::<TenantName, u64>::new();
    let (mut rejected, mut shown) = (0_u64, Vec::new());
    while let Some(record) = input.records.next().map_err(unreadable)? {
        match input.columns.row(&record) {
            Ok(row) => *tenants.entry(row.tenant).or_default() += 1,
            Err(reason) => {
                rejected += 1;
                if shown.len() < REJECTED_SHOWN_MAX {
                    shown.push(format!("line {}: {reason}", record.position.line + 1));
                }
            }
        }
    }
    let mut table = OutputTable::new(&["TENANT", "ROWS"], 2);
    for (tenant, rows) in tenants {
        let cells = vec![tenant.to_string(), rows.to_string()];
        table.push(cells, json!({ "tenant": tenant.to_string(), "rows": rows.to_string() }));
    }
    table.print(format)?;
    match rejected {
        0 => Ok(()),
        count => {
            let what = output::count(count, "record");
            Err(CommandError::new(
                Code::Failed,
                format!("{what} would be rejected: {}", shown.join("; ")),
            ))
        }
    }
}
