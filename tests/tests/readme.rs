//! Tests of the documents: the README's commands print what it shows, up to times and ports; commands and files that
//! documents name exist.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use stead_tests::process::{binary, exclusive_lock};
use tempfile::TempDir;
use tokio::time::sleep;

/// Time in which a cluster must be ready.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Lines of the README that are seen without scrolling.
const FIRST_SCREEN_LINES: usize = 24;
/// Line printed between the commands of a block.
const COMMAND_SEPARATOR: &str = "@@ next command @@";

/// Command with the output that the README shows.
struct ConsoleCommand {
    command: String,
    shown: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the `console` blocks of a document, which show commands with their output.
fn console_blocks(text: &str) -> Vec<Vec<ConsoleCommand>> {
    let blocks = text.split("```console\n").skip(1);
    let pasted = |block: &str| {
        let block = block.split("```").next().unwrap();
        let mut commands: Vec<ConsoleCommand> = Vec::new();
        for line in block.lines() {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push(ConsoleCommand {
                    command: command.to_owned(),
                    shown: String::new(),
                }),
                (None, Some(last)) => last.shown += &format!("{line}\n"),
                (None, None) => panic!("a block begins with a command, not with {line}"),
            }
        }
        commands
    };
    blocks.map(pasted).collect()
}

/// Normalizes a text: times, ports and column widths differ from run to run.
fn without_figures(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_time = |at: usize| matches!(words.get(at), Some(&"ms" | &"s"));
    let is_counted = |at: usize| {
        let next = words.get(at + 1).copied().unwrap_or_default();
        let is_before = ["written", "already", "acknowledged", "survived,", "were"].contains(&next);
        is_before || at.checked_sub(1).is_some_and(|before| words[before] == "had:")
    };
    let is_late_revision = |word: &str| word.split_once("@4.").is_some_and(|(_, sequence)| sequence.len() > 3);
    let word = |(at, word): (usize, &&str)| match word {
        word if word.parse::<f64>().is_ok() && is_time(at + 1) => "TIME".to_owned(),
        _ if is_time(at) => String::new(),
        word if word.starts_with("127.0.0.1:") => "ADDRESS".to_owned(),
        // What a killed region had acknowledged differs from run to run; what was lost of it does not.
        word if word.parse::<u64>().is_ok() && is_counted(at) => "COUNT".to_owned(),
        word if is_late_revision(word) => "REVISION".to_owned(),
        word => (*word).to_owned(),
    };
    let words = words.iter().enumerate().map(word).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Stand-in for a checkout after `cargo build`, with a `cargo` that runs the built binary instead of building it again.
struct Checkout(TempDir);

impl Checkout {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let built = folder.path().join("target/debug");
        fs::create_dir_all(&built).unwrap();
        symlink(binary(), built.join("stead")).unwrap();
        let cargo = folder.path().join("bin/cargo");
        fs::create_dir_all(cargo.parent().unwrap()).unwrap();
        let script = format!(
            "#!/bin/sh\n[ \"$1 $2\" = 'run --' ] || exit 99\nshift 2\nexec {} \"$@\"\n",
            binary().display()
        );
        fs::write(&cargo, script).unwrap();
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn shell(&self, script: &str) -> Command {
        let mut shell = Command::new("sh");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STEAD_")) {
            shell.env_remove(name);
        }
        let path = format!(
            "{}:{}",
            self.0.path().join("bin").display(),
            std::env::var("PATH").unwrap()
        );
        shell.arg("-c").arg(script).current_dir(self.0.path());
        shell
            .env("PATH", path)
            .env("HOME", self.0.path())
            .env_remove("XDG_CONFIG_HOME");
        shell.stdin(Stdio::null());
        shell
    }

    /// Runs the commands of a block in one shell and compares the output of each.
    fn run_and_compare(&self, block: &[ConsoleCommand]) {
        let commands: Vec<&str> = block.iter().map(|command| command.command.as_str()).collect();
        let script = format!(
            "exec 2>&1\n{}",
            commands.join(&format!("\necho '{COMMAND_SEPARATOR}'\n"))
        );
        let printed = self.shell(&script).output().unwrap().stdout;
        let printed = String::from_utf8(printed).unwrap();
        let mut outputs = printed.split(COMMAND_SEPARATOR);
        for ConsoleCommand { command, shown } in block {
            let output = outputs.next().unwrap_or_default();
            assert_eq!(
                without_figures(output),
                without_figures(shown),
                "`{command}` printed\n{output}"
            );
        }
    }
}

/// Command that stays up, ended when this value is dropped.
struct RunningCommand(std::process::Child);

impl RunningCommand {
    async fn start(checkout: &Checkout, command: &str) -> Self {
        let log = checkout.0.path().join("up.log");
        let mut shell = checkout.shell(&format!("exec {command}"));
        shell.stdout(fs::File::create(&log).unwrap());
        let mut up = Self(shell.spawn().unwrap());
        let deadline = Instant::now() + READY_WITHIN;
        while !fs::read_to_string(&log).unwrap().contains("up until Ctrl-C") {
            assert!(up.0.try_wait().unwrap().is_none(), "`{command}` has ended");
            assert!(Instant::now() < deadline, "`{command}` is not up in time");
            sleep(Duration::from_millis(50)).await;
        }
        up
    }
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        // It stops its nodes; should it fail to, they end with it.
        let asked = Command::new("kill").arg(self.0.id().to_string()).status();
        if asked.is_err() {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn readme_commands_print_what_is_shown() {
    let _lock = exclusive_lock();
    let checkout = Checkout::make();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let blocks = console_blocks(&readme);
    assert_eq!(
        blocks.len(),
        3,
        "the demo, a cluster that stays up, and commands against it"
    );
    let mut up = None;
    for block in &blocks {
        match block.as_slice() {
            [only] if only.command.contains("--keep") => {
                assert_eq!(only.shown, "");
                up = Some(RunningCommand::start(&checkout, &only.command).await);
            }
            commands => checkout.run_and_compare(commands),
        }
    }
    assert!(up.is_some(), "a cluster was up");
}

/// Returns the code spans that begin with `stead `, as words up to the first that is for the shell.
fn named_commands(text: &str) -> Vec<Vec<String>> {
    let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let commands = spans.filter_map(|span| span.strip_prefix("stead "));
    let words = |command: &str| {
        let words = command.split_whitespace();
        words
            .take_while(|word| !["…", ">", "|"].contains(word))
            .map(str::to_owned)
            .collect()
    };
    commands.map(words).collect()
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_text = path
            .extension()
            .is_some_and(|end| ["md", "rs", "toml", "service"].iter().any(|text| end == *text));
        if path.is_dir() {
            files_below(&path, found);
        } else if is_text {
            found.push(path);
        }
    }
}

#[test]
fn documented_commands_exist() {
    let root = root();
    let mut files = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    for folder in ["docs", "deploy", "crates"] {
        files_below(&root.join(folder), &mut files);
    }
    let mut commands: Vec<(PathBuf, Vec<String>)> = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        commands.extend(named_commands(&text).into_iter().map(|command| (file.clone(), command)));
    }
    assert!(commands.len() > 30, "commands were found");
    commands.sort_by(|a, b| a.1.cmp(&b.1));
    commands.dedup_by(|a, b| a.1 == b.1);
    for (file, command) in commands {
        let mut stead = Command::new(binary());
        stead.args(&command);
        if command.first().is_none_or(|first| first != "help") {
            stead.arg("--help");
        }
        let output = stead.output().unwrap();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} names {command:?}: {why}", file.display());
    }
}

/// Returns the commands in the `text` blocks of a document, one a line.
fn command_lines(text: &str) -> Vec<&str> {
    let blocks = text.split("```text\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap_or_default().lines());
    lines.filter(|line| line.starts_with("stead ")).collect()
}

#[test]
fn runbook_commands_are_understood() {
    let runbook = fs::read_to_string(root().join("docs/runbook.md")).unwrap();
    let commands = command_lines(&runbook);
    assert!(commands.len() > 15, "commands were found");
    for command in commands {
        let arguments = command.trim_start_matches("stead ");
        let line = format!("exec '{}' {arguments} --help", binary().display());
        let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{command}`: {why}");
    }
}

#[test]
fn readme_names_both_commands_on_its_first_screen() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let first_screen: Vec<&str> = readme.lines().take(FIRST_SCREEN_LINES).collect();
    let starts_line = |command: &str| first_screen.iter().any(|line| line.starts_with(command));
    assert!(starts_line("cargo run -- dev "), "the main job is not named");
    assert!(starts_line("cargo test --workspace "), "the tests are not named");
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(
        ci.contains(" cargo test --workspace;"),
        ".ci/run runs other tests than README.md names"
    );
}

#[test]
fn documented_files_exist() {
    let root = root();
    let mut documents = vec![
        root.join("README.md"),
        root.join("CONTRIBUTING.md"),
        root.join("deploy/README.md"),
    ];
    files_below(&root.join("docs"), &mut documents);
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap();
            if link.is_empty() || link.contains("://") {
                continue;
            }
            let path = document.parent().unwrap().join(link);
            assert!(path.exists(), "{} names {link}", document.display());
        }
    }
}
