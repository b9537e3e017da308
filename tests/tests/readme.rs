//! The README's commands, pasted one by one into a shell, do what it says; times and ports may differ.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use stead_tests::process::{alone, binary};
use tempfile::TempDir;
use tokio::time::sleep;

/// How long a cluster may take to be up.
const UP_WITHIN: Duration = Duration::from_secs(120);
/// Printed between the commands of a block.
const MARK: &str = "@@ next command @@";

/// A command, and what the README says that it prints.
struct Pasted {
    command: String,
    shown: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The blocks of a document in which commands are shown with what they print.
fn blocks(text: &str) -> Vec<Vec<Pasted>> {
    let blocks = text.split("```console\n").skip(1);
    let pasted = |block: &str| {
        let block = block.split("```").next().unwrap();
        let mut commands: Vec<Pasted> = Vec::new();
        for line in block.lines() {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push(Pasted {
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

/// Leaves out what differs from run to run: times and ports, and how wide they are.
fn without_figures(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_time = |at: usize| matches!(words.get(at), Some(&"ms" | &"s"));
    let word = |(at, word): (usize, &&str)| match word {
        word if word.parse::<f64>().is_ok() && is_time(at + 1) => "TIME".to_owned(),
        _ if is_time(at) => String::new(),
        word if word.starts_with("127.0.0.1:") => "ADDRESS".to_owned(),
        word => (*word).to_owned(),
    };
    let words = words.iter().enumerate().map(word).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// A clone after `cargo build`, and a `cargo` that runs what was built instead of building it again.
struct Clone(TempDir);

impl Clone {
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

    /// Runs the commands of a block in one shell and compares what each prints.
    fn paste(&self, block: &[Pasted]) {
        let commands: Vec<&str> = block.iter().map(|pasted| pasted.command.as_str()).collect();
        let script = format!("exec 2>&1\n{}", commands.join(&format!("\necho '{MARK}'\n")));
        let printed = self.shell(&script).output().unwrap().stdout;
        let printed = String::from_utf8(printed).unwrap();
        let mut answers = printed.split(MARK);
        for Pasted { command, shown } in block {
            let answer = answers.next().unwrap_or_default();
            assert_eq!(
                without_figures(answer),
                without_figures(shown),
                "`{command}` printed\n{answer}"
            );
        }
    }
}

/// A command that stays up, ended with this value.
struct Up(std::process::Child);

impl Up {
    async fn start(clone: &Clone, command: &str) -> Self {
        let log = clone.0.path().join("up.log");
        let mut shell = clone.shell(&format!("exec {command}"));
        shell.stdout(fs::File::create(&log).unwrap());
        let mut up = Self(shell.spawn().unwrap());
        let deadline = Instant::now() + UP_WITHIN;
        while !fs::read_to_string(&log).unwrap().contains("up until Ctrl-C") {
            assert!(up.0.try_wait().unwrap().is_none(), "`{command}` has ended");
            assert!(Instant::now() < deadline, "`{command}` is not up in time");
            sleep(Duration::from_millis(50)).await;
        }
        up
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It ends its nodes by itself; should it fail to, they end with it.
        let asked = Command::new("kill").arg(self.0.id().to_string()).status();
        if asked.is_err() {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn what_the_readme_shows_is_what_happens() {
    let _alone = alone();
    let clone = Clone::make();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let blocks = blocks(&readme);
    assert_eq!(
        blocks.len(),
        3,
        "the story, a cluster that stays up, and what to do with it"
    );
    let mut up = None;
    for block in &blocks {
        match block.as_slice() {
            [only] if only.command.contains("--keep") => {
                assert_eq!(only.shown, "");
                up = Some(Up::start(&clone, &only.command).await);
            }
            commands => clone.paste(commands),
        }
    }
    assert!(up.is_some(), "a cluster was up");
}

/// What stands between backticks and begins with `stead `, as words up to the first that is for the shell.
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
fn every_command_that_documents_and_errors_name_is_there() {
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

#[test]
fn every_file_that_a_document_names_is_there() {
    let root = root();
    let mut documents = vec![
        root.join("README.md"),
        root.join("CONTRIBUTING.md"),
        root.join("deploy/README.md"),
    ];
    documents.extend(
        fs::read_dir(root.join("docs"))
            .unwrap()
            .map(|entry| entry.unwrap().path()),
    );
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
