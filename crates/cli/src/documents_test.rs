//! Documents against the program: every command line parses, every setting exists, every configuration loads.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::{
    Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};
use stead_server::config::{Config, KEYS};

use crate::args::Cli;

/// Words after which a line is no longer a command of `stead`, but the shell's or a remark.
const ENDS: [&str; 9] = [";", "|", ">", ">>", "<", "&&", "#", "->", "…"];
/// Limits and metrics' parts that are written like settings.
const NO_SETTINGS: [&str; 3] = ["node.answers", "node.scans", "node.crt"];
/// Ends of names of files, which look like settings: `tls.rs`.
const FILE_ENDS: [&str; 6] = [".rs", ".toml", ".key", ".crt", ".env", ".md"];
/// Least number of commands that documents have: fewer, and the search has failed.
const COMMANDS_MIN: usize = 150;

/// Part of a document.
enum DocumentPart {
    /// Lines of a fenced block, and its language.
    Block(String, String),
    /// A code span of a paragraph.
    Span(String),
}

/// Command of a document.
struct DocumentedCommand {
    line: String,
    /// Whether it is complete, and not only named in a sentence.
    whole: bool,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn documents() -> Vec<(String, String)> {
    let mut paths = vec!["README.md".into(), "CONTRIBUTING.md".into()];
    for folder in ["docs", "docs/adr", "deploy"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                paths.push(format!("{folder}/{name}"));
            }
        }
    }
    let read = |path: String| {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// Returns the blocks and code spans of a document; a span may go on in the next line of its paragraph.
fn parts(text: &str) -> Vec<DocumentPart> {
    let mut parts = Vec::new();
    for (at, section) in text.split("```").enumerate() {
        if at % 2 == 1 {
            let (language, lines) = section.split_once('\n').unwrap_or((section, ""));
            parts.push(DocumentPart::Block(language.to_owned(), lines.to_owned()));
            continue;
        }
        let mut paragraph = String::new();
        for line in section.lines().chain([""]) {
            let line = line.trim_start();
            // A flag at the begin of a line is no item of a list.
            let begins = ["| ", "- ", "#"].iter().any(|begin| line.starts_with(begin)) || line.is_empty();
            if begins {
                let spans = paragraph.split('`').skip(1).step_by(2);
                parts.extend(spans.map(|span| DocumentPart::Span(span.to_owned())));
                paragraph.clear();
            }
            paragraph += line;
            paragraph += " ";
        }
    }
    parts
}

/// Returns the arguments of a line that begins with the program or with what runs it.
fn arguments(line: &str) -> Option<&str> {
    let line = line.trim().trim_start_matches("$ ");
    ["stead ", "cargo run -- ", "cargo run --release -- "]
        .iter()
        .find_map(|begin| line.strip_prefix(begin))
}

fn commands(text: &str) -> Vec<DocumentedCommand> {
    let mut found = Vec::new();
    for part in parts(text) {
        match part {
            DocumentPart::Block(_, lines) => {
                // A command goes on in the line after a backslash, which is indented.
                let lines: String = lines.split("\\\n").map(str::trim_start).collect();
                // Two blanks separate a command from a remark about it.
                let lines = lines.lines().filter_map(|line| line.trim().split("  ").next());
                found.extend(lines.filter_map(arguments).map(|line| DocumentedCommand {
                    line: line.to_owned(),
                    whole: true,
                }));
            }
            DocumentPart::Span(span) => found.extend(arguments(&span).map(|line| DocumentedCommand {
                line: line.to_owned(),
                whole: false,
            })),
        }
    }
    found
}

/// Returns the words of a command, up to what is the shell's.
fn words(line: &str) -> Vec<String> {
    let mut words = vec!["stead".to_owned()];
    for word in shlex::split(line).unwrap_or_else(|| panic!("quotes do not match: {line}")) {
        if ENDS.contains(&word.as_str()) {
            break;
        }
        let ended = word.strip_suffix(';');
        words.push(ended.unwrap_or(&word).to_owned());
        if ended.is_some() {
            break;
        }
    }
    words
}

/// Returns why a command is not understood.
fn refusal(command: &DocumentedCommand) -> Option<String> {
    let error = Cli::try_parse_from(words(&command.line)).err()?;
    let is_placeholder = |value: &ContextValue| {
        let ContextValue::String(value) = value else {
            return false;
        };
        value.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
    };
    let kind = error.kind();
    let is_help = matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let is_short = matches!(
        kind,
        ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    let is_about_value = matches!(kind, ErrorKind::ValueValidation | ErrorKind::InvalidValue);
    let has_placeholder = is_about_value && error.get(ContextKind::InvalidValue).is_some_and(is_placeholder);
    let is_fine = is_help || (!command.whole && (is_short || has_placeholder));
    (!is_fine).then(|| error.to_string())
}

#[test]
fn every_documented_command_parses() {
    let mut refused = Vec::new();
    let mut count = 0;
    for (document, text) in documents() {
        for command in commands(&text) {
            count += 1;
            let why = refusal(&command);
            refused.extend(why.map(|why| format!("{document}: stead {}: {why}", command.line)));
        }
    }
    assert!(count > COMMANDS_MIN, "{count} commands were found");
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn unknown_verb_flag_and_missing_argument_are_found() {
    // Another test takes what stands between backticks in sources for commands, too.
    let refused = |text: &str| -> Vec<String> {
        let text = text.replace('^', "`");
        commands(&text).iter().filter_map(refusal).collect()
    };
    for wrong in [
        "say ^stead node grow eu-4^",
        "say ^stead node add eu-4\n--in eu^",
        "| ^stead node remove eu-4 --force^ | what |",
        "^^^text\nstead node add eu-4    announces it\n^^^",
        "^^^console\n$ stead dev --topology nowhere.toml --cheque\n^^^",
        "^^^sh\nstead kv import a.csv \\\n  --kee icao\n^^^",
        "run ^cargo run -- dev --chek^",
    ] {
        assert_eq!(refused(wrong).len(), 1, "{wrong}");
    }
    for right in [
        "say ^stead node add^, or ^stead node add eu-4 --of eu^",
        "^stead dev --base-port PORT^",
        "^^^console\n$ stead kv get globex nothing; echo \"exit code $?\"\nerror: x\n^^^",
        "^^^text\ncargo run -- dev           the main job\n^^^",
        "^stead config default > stead.toml^",
    ] {
        assert_eq!(refused(right), [""; 0], "{right}");
    }
}

/// Tells whether a code span is written like a setting: a section, a point, a key.
fn is_like_setting(span: &str) -> bool {
    let sections: BTreeSet<&str> = KEYS.iter().filter_map(|key| key.split('.').next()).collect();
    let is_word =
        |word: &str| !word.is_empty() && word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_');
    span.split_once('.')
        .is_some_and(|(section, key)| sections.contains(section) && is_word(key))
        && !FILE_ENDS.iter().any(|end| span.ends_with(end))
}

/// Returns the setting that an environment variable of a text names.
fn variables(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|letter: char| !(letter.is_ascii_uppercase() || letter == '_'));
    let named = words.filter_map(|word| word.strip_prefix("STEAD_")?.split_once("__"));
    named.map(|(section, key)| format!("{section}.{key}").to_ascii_lowercase())
}

#[test]
fn every_documented_setting_exists() {
    let mut unknown = BTreeSet::new();
    for (document, text) in documents() {
        let spans = parts(&text).into_iter().filter_map(|part| match part {
            DocumentPart::Span(span) => Some(span),
            DocumentPart::Block(..) => None,
        });
        // `tls.plaintext = "allow"` names a setting, too.
        let named = spans.filter_map(|span| span.split_whitespace().next().map(str::to_owned));
        for setting in named.filter(|span| is_like_setting(span)).chain(variables(&text)) {
            if !KEYS.contains(&setting.as_str()) && !NO_SETTINGS.contains(&setting.as_str()) {
                unknown.insert(format!("{document}: {setting}"));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn every_documented_configuration_loads() {
    let mut loaded = 0;
    for (document, text) in documents() {
        for part in parts(&text) {
            let DocumentPart::Block(language, lines) = part else {
                continue;
            };
            let table = lines.parse::<toml::Table>();
            let of_node = |table: &toml::Table| {
                table
                    .keys()
                    .any(|key| KEYS.iter().any(|known| known.starts_with(&format!("{key}."))))
            };
            if language == "toml" && table.as_ref().is_ok_and(of_node) {
                Config::load(&lines, []).unwrap_or_else(|error| panic!("{document}: {error}\n{lines}"));
                loaded += 1;
            }
        }
    }
    assert!(loaded > 0, "configurations were found");
}
