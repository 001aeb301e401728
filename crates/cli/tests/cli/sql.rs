//! `jointly sql`, and Parquet: another program, here a stand-in that says its arguments.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program in a folder of its own: beside the built one there may lie a real jointly-sql.
fn alone(folder: &Path) -> impl Fn(&[&str]) -> Output {
    let program = folder.join("jointly");
    let built = env!("CARGO_BIN_EXE_jointly");
    if fs::hard_link(built, &program).is_err() {
        fs::copy(built, &program).unwrap();
    }
    move |arguments| {
        Command::new(&program)
            .args(arguments)
            .env("PATH", "/nonexistent")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

#[test]
fn sql_and_parquet_are_the_work_of_another_program() {
    let folder = tempfile::tempdir().unwrap();
    let jointly = alone(folder.path());
    let fails = |arguments: &[&str], code: i32, message: &str| {
        let output = jointly(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(message), "{errors:?} does not say {message:?}");
    };
    for arguments in [
        &["sql", "SELECT 1"][..],
        &["score", "pairs.parquet", "-o", "scores.jsonl"],
        &["score", "pairs.jsonl", "-o", "scores.PARQUET"],
    ] {
        fails(arguments, 2, "cargo install --locked --path bulk");
    }
    fails(&["score", "pairs.parquet"], 2, "-o names it");
    fails(&["score", "pairs.parquet", "-o", "x.csv", "--skip-bad"], 2, "not for Parquet");
    fails(&["sql"], 2, "ARGUMENTS");

    let stand_in = folder.path().join("jointly-sql");
    fs::write(&stand_in, "#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 7\n").unwrap();
    fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
    for (given, handed_on) in [
        (
            &["--quiet", "sql", "SELECT '1'", "--threads", "2", "-o", "x y"][..],
            &["--quiet", "SELECT '1'", "--threads", "2", "-o", "x y"][..],
        ),
        (&["sql", "--scheduler", "h:1", "SELECT 1"], &["--scheduler", "h:1", "SELECT 1"]),
        (
            &["--threads", "2", "score", "a.parquet", "-o", "b.csv", "--long", "windows"],
            &["--threads", "2", "score", "a.parquet", "-o", "b.csv", "--long", "windows"],
        ),
    ] {
        let output = jointly(given);
        assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.lines().collect::<Vec<_>>(), handed_on);
    }
}
