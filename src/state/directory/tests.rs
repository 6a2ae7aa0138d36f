use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

const APPLICATION: &str = "drift-monitor-group";

/// Where the child process finds the directory it is to open.
const CHILD_OPENS: &str = "LEEWAY_TEST_STATE_DIRECTORY";

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn open(path: &Path) -> StateDirectory {
    StateDirectory::open(path, APPLICATION).unwrap()
}

fn change_process_file(path: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let file = path.join("process.json");
    let mut json = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut json);
    fs::write(file, json.to_string()).unwrap();
}

#[test]
fn first_open_makes_the_directory_and_the_next_one_finds_the_same_process_id() {
    let scratch = scratch();
    let path = scratch.path().join("a/b");
    let first = open(&path).process_id().to_owned();
    assert!(first.len() == 16 && first.bytes().all(|byte| byte.is_ascii_hexdigit()), "{first}");
    assert_eq!(open(&path).process_id(), first);
    assert!(!path.join("process.json.tmp").exists());
}

#[test]
fn second_open_in_the_same_process_is_refused_until_the_first_is_dropped() {
    let scratch = scratch();
    let held = open(scratch.path());
    let error = StateDirectory::open(scratch.path(), APPLICATION).unwrap_err();
    assert!(
        matches!(error, DirectoryError::Locked { holder: Some(id), .. } if id == std::process::id()),
        "{error}"
    );
    let text = format!(
        "state directory {} is used by process {}; stop it or give this instance another one with --state-dir",
        held.path().display(),
        std::process::id()
    );
    assert_eq!(error.to_string(), text);
    drop(held);
    open(scratch.path());
}

#[test]
fn another_process_is_refused_while_this_one_holds_it() {
    let scratch = scratch();
    let _held = open(scratch.path());
    let (mut child, outcome) = child_that_opens(scratch.path());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(outcome.contains(&format!("is used by process {}", std::process::id())), "{outcome}");
}

#[test]
fn directory_of_a_process_that_was_killed_is_free_and_keeps_its_process_id() {
    let scratch = scratch();
    let (mut child, outcome) = child_that_opens(scratch.path());
    let process_id = outcome.strip_prefix("opened ").unwrap_or_else(|| panic!("{outcome}"));
    let error = StateDirectory::open(scratch.path(), APPLICATION).unwrap_err();
    assert!(
        matches!(error, DirectoryError::Locked { holder: Some(id), .. } if id == child.id()),
        "{error}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(open(scratch.path()).process_id(), process_id);
}

/// Starts this test binary again, with only [`child_opens_what_its_environment_names`], and gives what that found.
fn child_that_opens(path: &Path) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(
            [
                "--exact",
                concat!(module_path!(), "::child_opens_what_its_environment_names"),
                "--nocapture",
            ]
            .map(|arg| {
                // The test harness leaves the crate's name out.
                arg.split_once("::")
                    .filter(|(krate, _)| *krate == env!("CARGO_CRATE_NAME"))
                    .map_or(arg, |(_, test)| test)
            }),
        )
        .env(CHILD_OPENS, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let outcome = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("outcome: ").map(str::to_owned));
    (child, outcome.expect("the child says what it found"))
}

/// Does nothing unless it runs as the child of another test; then it holds the directory until it is killed.
#[test]
fn child_opens_what_its_environment_names() {
    let Some(path) = std::env::var_os(CHILD_OPENS) else { return };
    let opened = StateDirectory::open(Path::new(&path), APPLICATION);
    match &opened {
        Ok(directory) => println!("\noutcome: opened {}", directory.process_id()),
        Err(error) => println!("\noutcome: {error}"),
    }
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn store_keeps_the_directory_locked_until_it_is_closed() {
    let scratch = scratch();
    let directory = open(scratch.path());
    let store = crate::state::store::StateStore::open(&directory, crate::state::store::StoreOptions::default()).unwrap();
    drop(directory);
    assert!(matches!(
        StateDirectory::open(scratch.path(), APPLICATION),
        Err(DirectoryError::Locked { .. })
    ));
    store.close().unwrap();
    open(scratch.path());
}

#[test]
fn copied_directory_takes_a_new_process_id_and_keeps_it() {
    let scratch = scratch();
    let (original, copy) = (scratch.path().join("original"), scratch.path().join("copy"));
    let process_id = open(&original).process_id().to_owned();
    fs::create_dir(&copy).unwrap();
    for file in ["lock", "process.json"] {
        fs::copy(original.join(file), copy.join(file)).unwrap();
    }
    let copied = open(&copy).process_id().to_owned();
    assert_ne!(copied, process_id);
    assert_eq!(open(&copy).process_id(), copied);
    assert_eq!(open(&original).process_id(), process_id);
}

#[test]
fn directory_of_another_path_machine_or_inode_takes_a_new_process_id() {
    let changes: [(&str, serde_json::Value); 3] = [("path", "/elsewhere".into()), ("machine_id", "0".into()), ("inode", 1.into())];
    for (field, value) in changes {
        let scratch = scratch();
        let process_id = open(scratch.path()).process_id().to_owned();
        change_process_file(scratch.path(), |json| json[field] = value);
        assert_ne!(open(scratch.path()).process_id(), process_id, "{field}");
    }
}

#[test]
fn directory_of_another_application_is_refused_and_left_as_it_is() {
    let scratch = scratch();
    let process_id = open(scratch.path()).process_id().to_owned();
    let error = StateDirectory::open(scratch.path(), "other").unwrap_err();
    assert!(
        matches!(&error, DirectoryError::OtherApplication { found, wanted, .. } if found == APPLICATION && wanted == "other"),
        "{error}"
    );
    assert_eq!(open(scratch.path()).process_id(), process_id);
}

#[test]
fn newer_format_is_refused_whatever_else_it_holds() {
    let scratch = scratch();
    drop(open(scratch.path()));
    fs::write(scratch.path().join("process.json"), r#"{"format_version": 2, "process": {}}"#).unwrap();
    let error = StateDirectory::open(scratch.path(), APPLICATION).unwrap_err();
    assert!(matches!(error, DirectoryError::NewerFormat { found: 2, .. }), "{error}");
    assert!(error.to_string().contains("has format 2, this build knows up to 1"), "{error}");
}

#[test]
fn damaged_or_lost_process_file_is_an_error_and_not_a_new_identity_for_old_state() {
    let scratch = scratch();
    drop(open(scratch.path()));
    fs::create_dir_all(database_path(scratch.path())).unwrap();
    for text in ["", "{", "[]", r#"{"format_version": 1}"#] {
        fs::write(scratch.path().join("process.json"), text).unwrap();
        let error = StateDirectory::open(scratch.path(), APPLICATION).unwrap_err();
        assert!(matches!(error, DirectoryError::Damaged { .. }), "{text:?}: {error}");
    }
    fs::remove_file(scratch.path().join("process.json")).unwrap();
    let error = StateDirectory::open(scratch.path(), APPLICATION).unwrap_err();
    assert!(
        error.to_string().contains("it has a db but no process.json; delete the directory"),
        "{error}"
    );
}

#[test]
fn process_id_that_would_break_a_transactional_id_is_refused() {
    let scratch = scratch();
    drop(open(scratch.path()));
    change_process_file(scratch.path(), |json| json["process_id"] = "../x".into());
    let error = StateDirectory::open(scratch.path(), APPLICATION).unwrap_err();
    assert!(matches!(error, DirectoryError::Damaged { .. }), "{error}");
}

#[test]
fn path_that_is_a_file_is_an_error_that_names_it() {
    let scratch = scratch();
    let path = scratch.path().join("file");
    fs::write(&path, "").unwrap();
    let error = StateDirectory::open(&path, APPLICATION).unwrap_err();
    assert!(
        matches!(error, DirectoryError::Io { .. }) && error.to_string().contains("file"),
        "{error}"
    );
}

#[test]
fn free_directory_is_the_next_one_that_is_not_in_use() {
    let scratch = scratch();
    let default = scratch.path().join("leeway-state");
    let name = |directory: &StateDirectory| directory.path().file_name().unwrap().to_str().unwrap().to_owned();
    let free = || StateDirectory::open_free(&default, APPLICATION).unwrap();
    let (first, second, third) = (free(), free(), free());
    assert_eq!([&first, &second, &third].map(name), ["leeway-state", "leeway-state-1", "leeway-state-2"]);
    drop(second);
    assert_eq!(name(&free()), "leeway-state-1");
}

#[test]
fn free_directory_of_an_application_is_found_again_beside_another_ones() {
    let scratch = scratch();
    let default = scratch.path().join("leeway-state");
    let open = |application: &str| StateDirectory::open_free(&default, application).unwrap();
    let (a, b) = (open("a"), open("b"));
    let paths = [a.path().to_owned(), b.path().to_owned()];
    drop((a, b));
    let b = open("b");
    assert_eq!([open("a").path(), b.path()], [paths[0].as_path(), paths[1].as_path()]);
}

#[test]
fn free_directory_is_searched_among_a_bounded_number() {
    let scratch = scratch();
    let default = scratch.path().join("s");
    let held: Vec<_> = (0..FREE_DIRECTORIES_MAX)
        .map(|_| StateDirectory::open_free(&default, APPLICATION).unwrap())
        .collect();
    let error = StateDirectory::open_free(&default, APPLICATION).unwrap_err();
    assert!(matches!(error, DirectoryError::NoneFree { tried: 64, .. }), "{error}");
    assert_eq!(held.len(), 64);
}
