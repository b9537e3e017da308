//! Modules of a crate, read from its sources, and the circles in which they use each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Modules of one crate by path, the crate's root with an empty one, and how they refer to each other.
#[derive(Default)]
pub(crate) struct ModuleTree {
    /// Paths that a module names, relative to it, such as `super::record::Role`.
    named: BTreeMap<String, Vec<String>>,
    /// Names that a module imports or exports, with their paths.
    imports: BTreeMap<String, BTreeMap<String, String>>,
}

/// Returns the path of a module's child.
fn child(module: &str, name: &str) -> String {
    if module.is_empty() {
        name.to_owned()
    } else {
        format!("{module}::{name}")
    }
}

/// Returns the path of a module's parent.
fn parent(module: &str) -> &str {
    module.rsplit_once("::").map_or("", |(parent, _)| parent)
}

/// Returns the paths of a use tree, with their `as`.
fn use_paths(prefix: &str, tree: &str) -> Vec<String> {
    let Some((head, list)) = tree.split_once('{') else {
        return vec![format!("{prefix}{}", tree.trim())];
    };
    let list = list.rsplit_once('}').unwrap().0;
    let mut depth = 0;
    let parts = list.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let prefix = format!("{prefix}{}", head.trim());
    let parts = parts.filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| use_paths(&prefix, part)).collect()
}

/// Returns the paths that code outside `use` names from the crate's root or relative to its module.
fn inline_paths(code: &str) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code.split(|c| !is_path(c));
    let is_relative = |word: &&str| {
        ["crate::", "super::", "self::"]
            .iter()
            .any(|start| word.starts_with(start))
    };
    words.filter(is_relative).map(str::to_owned).collect()
}

impl ModuleTree {
    /// Reads the files of a crate, whose root is in `src`, without the tests.
    pub(crate) fn read(src: &Path, files: &[PathBuf]) -> Self {
        let mut tree = Self::default();
        for path in files {
            let shown = path.strip_prefix(src).unwrap().with_extension("");
            let names: Vec<_> = shown.iter().map(|name| name.to_str().unwrap()).collect();
            let module = match names.as_slice() {
                [names @ .., "mod" | "lib"] | names => names.join("::"),
            };
            if !module.ends_with("_test") {
                tree.add(module, &fs::read_to_string(path).unwrap());
            }
        }
        tree
    }

    fn add(&mut self, module: String, text: &str) {
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        let code: Vec<&str> = code.lines().filter(is_code).collect();
        let (mut named, mut imports) = (Vec::new(), BTreeMap::new());
        for statement in code.join("\n").split(';') {
            let start = statement.match_indices("use ").find(|(at, _)| {
                let before = statement[..*at].rsplit('\n').next().unwrap_or_default().trim();
                before.is_empty() || before == "pub" || (before.starts_with("pub(") && before.ends_with(')'))
            });
            let Some((start, _)) = start else {
                named.extend(inline_paths(statement));
                continue;
            };
            named.extend(inline_paths(&statement[..start]));
            for path in use_paths("", &statement[start + "use ".len()..]) {
                let (path, name) = path.split_once(" as ").unwrap_or((&path, ""));
                let path = path.strip_suffix("::self").unwrap_or(path);
                let last = path.rsplit("::").next().unwrap_or(path);
                let name = if name.is_empty() { last } else { name };
                imports.insert(name.to_owned(), path.to_owned());
                named.push(path.to_owned());
            }
        }
        self.named.insert(module.clone(), named);
        self.imports.insert(module, imports);
    }

    /// Returns the module in which a path ends: the module itself, or the one that defines the item; `None` outside the
    /// crate.
    fn resolve(&self, module: &str, path: &str) -> Option<String> {
        let mut segments = path.split("::").peekable();
        let mut at = match *segments.peek()? {
            "crate" => String::new(),
            "self" => module.to_owned(),
            "super" => parent(module).to_owned(),
            first if self.named.contains_key(&child(module, first)) => child(module, first),
            _ => return None,
        };
        segments.next();
        for segment in segments {
            let below = child(&at, segment);
            if segment == "super" {
                at = parent(&at).to_owned();
            } else if self.named.contains_key(&below) {
                at = below;
            } else {
                // What another module has imported is where that one has it from, unless an item of the module has the
                // name of something outside.
                let imported = self.imports.get(&at)?.get(segment).filter(|_| at != module);
                return imported.and_then(|path| self.resolve(&at, path)).or(Some(at));
            }
        }
        Some(at)
    }

    /// Returns which children of a module use which, each with an example.
    fn uses_between_children(&self, parent: &str) -> BTreeMap<(String, String), String> {
        let child_of = |module: &str| {
            let below = match parent {
                "" => module,
                parent => module.strip_prefix(parent)?.strip_prefix("::")?,
            };
            let name = below.split("::").next()?;
            (!name.is_empty()).then(|| name.to_owned())
        };
        let mut uses = BTreeMap::new();
        for (module, paths) in &self.named {
            let Some(from) = child_of(module) else { continue };
            for path in paths {
                let to = self.resolve(module, path).and_then(|target| child_of(&target));
                if let Some(to) = to.filter(|to| *to != from) {
                    uses.entry((from.clone(), to))
                        .or_insert_with(|| format!("{module} uses {path}"));
                }
            }
        }
        uses
    }

    /// Returns the modules from this one down that have children.
    pub(crate) fn parents_below<'a>(&'a self, top: &str) -> BTreeSet<&'a str> {
        let parents = self
            .named
            .keys()
            .filter(|module| !module.is_empty())
            .map(|module| parent(module));
        let is_below = |parent: &&str| {
            let rest = parent.strip_prefix(top);
            rest.is_some_and(|rest| top.is_empty() || rest.is_empty() || rest.starts_with("::"))
        };
        let found: BTreeSet<&str> = parents.filter(is_below).collect();
        assert!(found.contains(top), "no modules below {top:?}");
        found
    }

    /// Returns the circles between the children of a module, by the children that take part.
    pub(crate) fn circles(&self, parent: &str) -> BTreeMap<BTreeSet<String>, Vec<String>> {
        let uses = self.uses_between_children(parent);
        let reached = |from: &str| {
            let (mut reached, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
            while let Some(at) = open.pop() {
                let next = uses.keys().filter(|(user, _)| *user == at).map(|(_, used)| used);
                open.extend(next.filter(|used| reached.insert((*used).clone())).cloned());
            }
            reached
        };
        let users: BTreeSet<&String> = uses.keys().map(|(user, _)| user).collect();
        let reached: BTreeMap<&str, BTreeSet<String>> =
            users.into_iter().map(|user| (user.as_str(), reached(user))).collect();
        let mut circles = BTreeMap::new();
        for (user, others) in &reached {
            let comes_back = |other: &&String| reached.get(other.as_str()).is_some_and(|back| back.contains(*user));
            let circle: BTreeSet<String> = others.iter().filter(comes_back).cloned().collect();
            let is_part = |(user, used): &(String, String)| circle.contains(user) && circle.contains(used);
            let examples = uses.iter().filter(|(pair, _)| is_part(pair));
            let examples = examples.map(|(_, example)| example.clone()).collect();
            if !circle.is_empty() {
                circles.insert(circle, examples);
            }
        }
        circles
    }
}

#[test]
fn circle_is_found_through_exports_and_nested_modules() {
    let mut tree = ModuleTree::default();
    tree.add(
        String::new(),
        "mod a;\nmod b;\nmod c;\npub use a::{deep::{self, Thing as Renamed}, Other};",
    );
    tree.add("a".into(), "pub mod deep;\nuse crate::c::C;");
    tree.add("a::deep".into(), "pub struct Thing;\nfn f() -> super::super::b::B {}");
    tree.add(
        "b".into(),
        "use crate::{\n    Renamed,\n};\n// use crate::c::C;\nuse std::fmt;",
    );
    tree.add(
        "c".into(),
        "pub struct C;\n#[cfg(test)]\nmod tests { use crate::a::X; }",
    );
    let found: Vec<BTreeSet<String>> = tree.circles("").into_keys().collect();
    assert_eq!(found, [BTreeSet::from(["a".to_owned(), "b".to_owned()])]);
    assert!(tree.circles("a").is_empty());
}
