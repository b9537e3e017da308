//! Tests of the data directory: refusals with their texts, the clean mark, and rebuilds.

use super::*;

fn identity() -> Identity {
    Identity {
        cluster: "prod".into(),
        node: NodeId::new(3),
        engine: Kind::Fjall,
    }
}

fn refusal(dir: &tempfile::TempDir, identity: &Identity) -> String {
    let refused = DataDir::open(dir.path(), identity).unwrap_err();
    refused.to_string().replace(dir.path().to_str().unwrap(), "DIR")
}

fn made() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    assert!(DataDir::open(dir.path(), &identity()).unwrap().created());
    dir
}

#[test]
fn data_dir_is_created_once_and_reopened() {
    let dir = made();
    let opened = DataDir::open(dir.path(), &identity()).unwrap();
    assert!(!opened.created());
    assert_eq!(opened.log(), dir.path().join("log"));
}

#[test]
fn other_identity_is_refused_with_advice() {
    let dir = made();
    let mut other = identity();
    other.cluster = "test".into();
    assert_eq!(
        refusal(&dir, &other),
        "DIR belongs to cluster \"prod\", this node to \"test\": correct cluster.name or data_dir, or start with an \
         empty directory"
    );
    let mut other = identity();
    other.node = NodeId::new(4);
    assert!(refusal(&dir, &other).starts_with("DIR belongs to node 3, this is node 4: correct node.name"));
    let mut other = identity();
    other.engine = Kind::Sled;
    assert!(refusal(&dir, &other).ends_with("to change a node's engine, replace the node"));
}

#[test]
fn newer_format_is_refused_before_other_fields() {
    let dir = made();
    fs::write(dir.path().join(IDENTITY), "{\"format\": 3, \"nodes\": []}").unwrap();
    assert_eq!(
        refusal(&dir, &identity()),
        "DIR has format 3, this program knows formats up to 2: use a newer version of stead"
    );
    fs::write(dir.path().join(IDENTITY), "{").unwrap();
    assert!(refusal(&dir, &identity()).contains("cannot be parsed"));
}

#[test]
fn directory_of_format_1_is_refused_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let marker = "{\n  \"format\": 1,\n  \"cluster\": \"prod\",\n  \"node\": 3,\n  \"engine\": \"fjall\"\n}";
    fs::write(dir.path().join(IDENTITY), marker).unwrap();
    fs::create_dir(dir.path().join(LOG)).unwrap();
    fs::create_dir(dir.path().join(ROWS)).unwrap();
    assert_eq!(
        refusal(&dir, &identity()),
        "DIR has format 1, this program reads format 2 and converts nothing: start it with the version of stead that \
         wrote it, or move the directory away and start with an empty one"
    );
    assert_eq!(fs::read_to_string(dir.path().join(IDENTITY)).unwrap(), marker);
}

#[test]
fn identity_file_contains_format_2() {
    let dir = made();
    let written = fs::read_to_string(dir.path().join(IDENTITY)).unwrap();
    assert!(written.starts_with("{\n  \"format\": 2,"), "{written}");
}

#[test]
fn locked_directory_is_refused_until_released() {
    let dir = made();
    let first = DataDir::open(dir.path(), &identity()).unwrap();
    assert!(refusal(&dir, &identity()).starts_with("DIR is in use by another process"));
    drop(first);
    DataDir::open(dir.path(), &identity()).unwrap();
}

#[test]
fn data_without_identity_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(ROWS)).unwrap();
    assert!(refusal(&dir, &identity()).starts_with("DIR holds data but no stead.json"));
}

#[test]
fn rows_without_log_are_refused() {
    let dir = made();
    fs::create_dir(dir.path().join(ROWS)).unwrap();
    assert!(refusal(&dir, &identity()).starts_with("DIR holds rows but no log"));
}

#[test]
fn only_start_after_orderly_stop_is_clean() {
    // Invariant 2.
    let dir = tempfile::tempdir().unwrap();
    let open = || DataDir::open(dir.path(), &identity()).unwrap();
    let first = open();
    assert!(first.was_clean(), "there is nothing yet");
    drop(first);
    let killed = open();
    assert!(!killed.was_clean());
    killed.end_clean().unwrap();
    let again = open();
    assert!(again.was_clean());
    drop(again);
    assert!(!open().was_clean());
}

#[test]
fn set_aside_rows_are_bounded_and_outlive_rebuild() {
    // Invariant 3.
    let dir = made();
    let opened = DataDir::open(dir.path(), &identity()).unwrap();
    let fail = |bytes: &str| {
        std::fs::create_dir_all(opened.rows()).unwrap();
        std::fs::write(opened.rows().join("data"), bytes).unwrap();
        opened.set_rows_aside(None).unwrap().is_some()
    };
    let kept = || -> Vec<String> {
        let numbers = opened.damaged().unwrap();
        let read = |number| std::fs::read_to_string(dir.path().join(format!("{DAMAGED}{number}/data"))).unwrap();
        numbers.into_iter().map(read).collect()
    };
    assert!(fail("first"));
    assert!(!fail("not whole"));
    assert_eq!(kept(), ["first"]);
    for rows in ["second", "third"] {
        opened.finish_rebuild().unwrap();
        assert!(fail(rows));
    }
    assert_eq!(kept(), ["second", "third"]);
}

#[test]
fn rebuild_target_is_kept_until_finished() {
    let dir = tempfile::tempdir().unwrap();
    let opened = DataDir::open(dir.path(), &identity()).unwrap();
    std::fs::create_dir_all(opened.rows()).unwrap();
    assert_eq!(
        (opened.rebuild_target().unwrap(), age(&opened.rebuilt_mark())),
        (None, None)
    );
    let rebuild_target = Some((GroupId::new(3), 77));
    opened.set_rows_aside(rebuild_target).unwrap();
    drop(opened);
    let opened = DataDir::open(dir.path(), &identity()).unwrap();
    assert_eq!(
        (opened.rebuild_target().unwrap(), age(&opened.rebuilt_mark())),
        (rebuild_target, None)
    );
    opened.finish_rebuild().unwrap();
    assert_eq!(opened.rebuild_target().unwrap(), None);
    assert!(age(&opened.rebuilt_mark()).is_some());
}

#[test]
fn power_cut_while_setting_aside_keeps_rebuild_target() {
    // Invariant 4.
    let rebuild_target = Some((GroupId::new(3), 77));
    for is_renamed in [false, true] {
        let dir = made();
        let opened = DataDir::open(dir.path(), &identity()).unwrap();
        std::fs::create_dir_all(opened.log()).unwrap();
        std::fs::create_dir_all(opened.rows()).unwrap();
        opened.set_rows_aside(rebuild_target).unwrap();
        std::fs::rename(dir.path().join(REBUILDING), dir.path().join(REBUILDING_NEXT)).unwrap();
        if !is_renamed {
            std::fs::rename(dir.path().join(format!("{DAMAGED}1")), opened.rows()).unwrap();
        }
        drop(opened);
        let opened = DataDir::open(dir.path(), &identity()).unwrap();
        assert_eq!(opened.rebuild_target().unwrap(), rebuild_target.filter(|_| is_renamed));
        assert_eq!(opened.rows().exists(), !is_renamed);
        assert!(!dir.path().join(REBUILDING_NEXT).exists());
    }
}

#[test]
fn malformed_rebuild_mark_is_refused() {
    let dir = made();
    let opened = DataDir::open(dir.path(), &identity()).unwrap();
    for text in ["3 7", "3\n", "three 7\n", "3 7 \n"] {
        fs::write(dir.path().join(REBUILDING), text).unwrap();
        let target = opened.rebuild_target();
        assert!(matches!(target, Err(DataDirError::MalformedMark(_))), "{text:?}");
    }
}

#[test]
fn recovery_mark_lasts_until_recovery_ends() {
    let dir = made();
    let open = || DataDir::open(dir.path(), &identity()).unwrap();
    assert_eq!(open().recovery().unwrap(), None);
    open().begin_recovery(Incarnation(2)).unwrap();
    assert_eq!(open().recovery().unwrap(), Some(Incarnation(2)));
    open().end_recovery().unwrap();
    assert_eq!(open().recovery().unwrap(), None);
    fs::write(dir.path().join(RECOVERING), "second\n").unwrap();
    assert!(matches!(open().recovery(), Err(DataDirError::MalformedRecovery(_))));
}
