//! Tests of what documents say about the source tree: files, lines and items of `docs/where-is.md`, paths, recipes.
//!
//! A reference of `docs/where-is.md` is a line ``- `PATH:FIRST-LAST`: `item`, `item` ``. The whole definition of each item is
//! within its range; one that moved or was renamed fails the test with the lines where it is now.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Questions of the page.
const QUESTIONS: usize = 10;
/// Folders whose paths documents name from the root of the repository.
const FOLDERS: &[&str] = &["crates/", "proto/", "tests/", "benches/", "docs/", "deploy/", ".ci/"];

/// Reference of the page to items in a range of lines, counted from 1.
struct Reference<'a> {
    path: &'a str,
    first: usize,
    last: usize,
    items: Vec<&'a str>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the code spans of a line.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Parses a reference; other lines are prose.
fn reference(line: &str) -> Option<Reference<'_>> {
    let mut spans = spans(line.strip_prefix("- ")?);
    let (path, lines) = spans.next()?.rsplit_once(':')?;
    let (first, last) = lines.split_once('-')?;
    Some(Reference {
        path,
        first: first.parse().unwrap(),
        last: last.parse().unwrap(),
        items: spans.collect(),
    })
}

/// Returns whether a line has an item's last segment as a whole word.
fn names(line: &str, item: &str) -> bool {
    let word = item.rsplit("::").next().unwrap_or(item);
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part))
}

/// Returns whether a line begins the definition of an item's last segment: of Rust, of a proto, or of a variant.
fn defines(line: &str, item: &str) -> bool {
    const KEYWORDS: &[&str] = &[
        "fn", "struct", "enum", "trait", "type", "const", "static", "union", "service", "message", "rpc",
    ];
    let word = item.rsplit("::").next().unwrap_or(item);
    let code = line.trim_start();
    let words: Vec<&str> = code.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    let is_keyword = |pair: &[&str]| KEYWORDS.contains(&pair[0]) && pair[1] == word;
    let is_variant =
        || words.first() == Some(&word) && code[word.len()..].starts_with([',', ' ', '(']) && !code.contains('=');
    !code.starts_with("//")
        && (words.windows(2).any(is_keyword) || (word.starts_with(char::is_uppercase) && is_variant()))
}

/// Returns the last line of the definition that begins at a line, both counted from 1: that of its closing brace.
fn end_of_definition(lines: &[&str], begin: usize) -> usize {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let first = lines[begin - 1];
    if first.ends_with([';', ',', '}']) {
        return begin;
    }
    let rest = (begin + 1..).zip(&lines[begin..]);
    let mut ends = rest.filter(|(_, line)| indent(line) == indent(first) && line.trim_start().starts_with(['}', ']']));
    ends.next().map_or(begin, |(number, _)| number)
}

/// Returns what is wrong with a reference.
fn errors(reference: &Reference<'_>) -> Vec<String> {
    let Reference {
        path,
        first,
        last,
        items,
    } = reference;
    let text = read(path);
    let lines: Vec<&str> = text.lines().collect();
    if *first == 0 || last < first || lines.len() < *last {
        return vec![format!("{path} has {} lines, not {first}-{last}", lines.len())];
    }
    let definitions = |item: &str| -> Vec<(usize, usize)> {
        let begins = (1..).zip(&lines).filter(|(_, line)| defines(line, item));
        begins
            .map(|(begin, _)| (begin, end_of_definition(&lines, begin)))
            .collect()
    };
    let outside = items.iter().filter(|item| {
        let mut all = definitions(item).into_iter();
        !all.any(|(begin, end)| *first <= begin && end <= *last)
    });
    let outside = outside.map(|item| {
        format!(
            "{path}:{first}-{last} lacks {item}, which is at {:?}",
            definitions(item)
        )
    });
    // The last segment of a path is defined in the range, the type before it stands anywhere in the file.
    let owners = items.iter().filter_map(|item| Some((item.rsplit_once("::")?.0, *item)));
    let without_owner = owners.filter(|(owner, _)| !lines.iter().any(|line| names(line, owner)));
    let without_owner = without_owner.map(|(owner, item)| format!("{path} has no {owner} of {item}"));
    outside.chain(without_owner).collect()
}

#[test]
fn where_is_names_existing_items_in_their_line_ranges() {
    let page = read("docs/where-is.md");
    let mut wrong = Vec::new();
    let answers: Vec<&str> = page.split("\n## ").skip(1).collect();
    assert_eq!(answers.len(), QUESTIONS, "questions of the page");
    for answer in answers {
        let question = answer.lines().next().unwrap_or_default();
        let references: Vec<Reference<'_>> = answer.lines().filter_map(reference).collect();
        assert!(references.len() > 1, "{question} has no references");
        for reference in &references {
            assert!(!reference.items.is_empty(), "{} names no item", reference.path);
            wrong.extend(errors(reference));
        }
    }
    assert!(wrong.is_empty(), "docs/where-is.md:\n{}", wrong.join("\n"));
}

fn documents(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            documents(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
}

#[test]
fn documents_name_existing_paths() {
    let root = root();
    let mut all = ["README.md", "CONTRIBUTING.md", "deploy/README.md"]
        .map(|name| root.join(name))
        .to_vec();
    documents(&root.join("docs"), &mut all);
    let mut named = 0;
    for document in all {
        let text = fs::read_to_string(&document).unwrap();
        for span in text.lines().flat_map(spans) {
            let is_path = FOLDERS.iter().any(|folder| span.starts_with(folder));
            if !is_path || span.contains([' ', '<', '*', '{']) {
                continue;
            }
            let path = span.split(':').next().unwrap_or(span);
            assert!(root.join(path).exists(), "{} names {path}", document.display());
            named += 1;
        }
    }
    assert!(named > 40, "paths were found");
}

/// Returns the recipes of the justfile with their commands, parameters replaced by their defaults or names.
fn recipes(justfile: &str) -> BTreeMap<String, String> {
    let mut recipes = BTreeMap::new();
    let mut header = Vec::new();
    for line in justfile
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let Some(command) = line.strip_prefix("    ") else {
            header = line.trim_end_matches(':').split(' ').collect();
            continue;
        };
        let (name, parameters) = header.split_first().unwrap();
        let mut command = command.to_owned();
        for parameter in parameters {
            let (parameter, value) = match (parameter.strip_prefix('*'), parameter.split_once('=')) {
                (Some(variadic), _) => (variadic, ""),
                (None, Some((parameter, default))) => (parameter, default.trim_matches('"')),
                (None, None) => (*parameter, *parameter),
            };
            command = command.replace(&format!("{{{{{parameter}}}}}"), value);
        }
        let earlier = recipes.insert((*name).to_owned(), command.trim_end().to_owned());
        assert!(earlier.is_none(), "recipe {name} has more than one line");
    }
    recipes
}

#[test]
fn contributing_lists_the_recipes_of_the_justfile() {
    let contributing = read("CONTRIBUTING.md");
    let table = contributing.split_once("\n## Recipes").unwrap().1;
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let documented: BTreeMap<String, String> = rows
        .map(|row| {
            let mut spans = spans(row);
            let name = spans.next().unwrap().split(' ').next().unwrap();
            (name.to_owned(), spans.next().unwrap().to_owned())
        })
        .collect();
    assert_eq!(documented, recipes(&read("justfile")));
}
