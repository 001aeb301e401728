use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::Global;
use crate::error::{CliError, Result};

/// The program that has SQL. It is another one because what reads Parquet and runs queries is several times as large as all
/// the rest, and as long to build.
const PROGRAM: &str = "jointly-sql";

/// Score pairs by SQL over Parquet, CSV and JSON lines, here or on a cluster
#[derive(Args)]
#[command(after_help = "\
  jointly sql \"SELECT id, rerank_score(query, document) AS s FROM 'pairs.parquet' ORDER BY s DESC\" -o scores.parquet
This runs the program jointly-sql, which lies beside this one or on PATH, with the same arguments: `jointly-sql --help` says
them. It is installed with `cargo install --locked --path bulk`.")]
pub struct Sql {
    /// The query and the options of jointly-sql
    #[arg(value_name = "ARGUMENTS", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Sql {
    pub fn run(self, global: Global) -> Result<()> {
        // Those that stood before the query were taken for this program's.
        let mut arguments = Vec::new();
        if let Some(threads) = global.threads {
            arguments.extend(["--threads".into(), threads.to_string().into()]);
        }
        arguments.extend(global.quiet.then(|| "--quiet".into()));
        arguments.extend(global.no_packed_cache.then(|| "--no-packed-cache".into()));
        become_program(arguments.into_iter().chain(self.arguments))
    }
}

/// Runs jointly-sql in place of this program; comes back only if that cannot be.
pub fn become_program(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let beside = env::current_exe().ok().and_then(|path| path.canonicalize().ok()).map(|path| {
        let name = format!("{PROGRAM}{}", env::consts::EXE_SUFFIX);
        path.with_file_name(name)
    });
    let program = beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(PROGRAM));
    let mut command = Command::new(&program);
    command.args(arguments);
    Err(match replace(&mut command) {
        error if error.kind() == std::io::ErrorKind::NotFound => CliError::Input(format!(
            "{PROGRAM}, which reads Parquet and runs SQL, is neither beside this program nor on PATH; install it with: cargo \
             install --locked --path bulk"
        )),
        error => CliError::file(&program, &error),
    })
}

#[cfg(unix)]
fn replace(command: &mut Command) -> std::io::Error {
    std::os::unix::process::CommandExt::exec(command)
}

/// Where a program cannot be replaced by another: waits for it, and ends as it did.
#[cfg(not(unix))]
fn replace(command: &mut Command) -> std::io::Error {
    match command.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => error,
    }
}
