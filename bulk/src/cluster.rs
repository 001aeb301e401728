//! The other two programs: a scheduler, and executors with a model each.
//!
//! Both are Ballista's, with our functions in their registries. An executor asks the scheduler for work; it needs one open port, at
//! which whoever asks gets what it has computed.

use std::path::PathBuf;
use std::sync::Arc;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::extension::{SessionConfigExt, ballista_scalar_functions};
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::utils::default_session_builder;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::start_server;
use clap::Args;
use datafusion::prelude::SessionConfig;

use crate::engine::{Engine, Scoring};
use crate::error::{Error, Result};
use crate::functions::{self, functions};
use crate::model::{Global, ModelArguments};

/// Seconds after which an executor that has not asked for work is given up. It asks every five, however busy it is.
const EXECUTOR_TIMEOUT: u64 = 20;

/// Hands out the pieces of queries to executors
#[derive(Debug, Clone, Args)]
pub struct Scheduler {
    /// The address to listen at; whoever reaches it can read files: keep it inside
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub bind: String,
    /// The port to listen at
    #[arg(long, value_name = "PORT", default_value_t = 50050)]
    pub port: u16,
    /// Seconds of silence after which an executor is given up and its work done again
    #[arg(long, value_name = "SECONDS", default_value_t = EXECUTOR_TIMEOUT, value_parser = clap::value_parser!(u64).range(6..))]
    pub executor_timeout: u64,
}

/// How long the output of a finished job lies on the executors.
const KEPT_SECONDS: u64 = 24 * 60 * 60;

impl Scheduler {
    /// Serves until it is ended.
    ///
    /// # Errors
    /// If it cannot listen there.
    pub async fn run(self, global: &Global) -> Result<()> {
        let address = format!("{}:{}", self.bind, self.port);
        let address: std::net::SocketAddr = address.parse().map_err(|_| {
            Error::Input(format!("{address}: not an address; --bind takes one like 10.0.0.1"))
        })?;
        let config = SchedulerConfig {
            bind_host: self.bind.clone(),
            external_host: self.bind,
            bind_port: self.port,
            scheduling_policy: TaskSchedulingPolicy::PullStaged,
            executor_timeout_seconds: self.executor_timeout,
            no_executors_grace_period_seconds: 3 * self.executor_timeout,
            expire_dead_executor_interval_seconds: 1,
            // Counted from the end of the job, however slowly its output is fetched.
            finished_job_data_clean_up_interval_seconds: KEPT_SECONDS,
            override_config_producer: Some(Arc::new(config)),
            override_session_builder: Some(Arc::new(|config| {
                let mut state = default_session_builder(config)?;
                functions::register(&mut state, None)?;
                Ok(state)
            })),
            ..SchedulerConfig::default()
        };
        let failed = |error: ballista_core::error::BallistaError| Error::Failed(error.to_string());
        let cluster = BallistaCluster::new_from_config(&config).await.map_err(failed)?;
        if !global.quiet {
            crate::say(format_args!("scheduler at {address}"));
        }
        tokio::select! {
            done = start_server(cluster, address, Arc::new(config)) => {
                done.map_err(|error| Error::Failed(format!("{address}: {error}")))
            }
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    }
}

/// The configuration before a query says its own: without the extension its settings would be lost.
fn config() -> SessionConfig {
    SessionConfig::new_with_ballista().with_option_extension(Scoring::default())
}

/// Scores pieces of queries with one model
#[derive(Debug, Clone, Args)]
pub struct Executor {
    /// The scheduler that gives it work
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50050")]
    pub scheduler: String,
    /// The address to listen at; whoever reaches it can read what is computed: keep it inside
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub bind: String,
    /// The name by which others reach it [default: that of --bind]
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// The port to listen at
    #[arg(long, value_name = "PORT", default_value_t = 50051)]
    pub port: u16,
    /// Pieces in work at once: one is scored, the others are read and written meanwhile
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub tasks: usize,
    /// Memory for sorting and joining, in MiB; what needs more goes to files
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(16..))]
    pub memory: u64,
    /// Where it keeps what it has computed until it is fetched [default: a temporary folder]
    #[arg(long, value_name = "FOLDER")]
    pub work_folder: Option<PathBuf>,
}

impl Executor {
    /// Loads the model, checks its receipt, and works until it is ended.
    ///
    /// # Errors
    /// If the model cannot be used, or there is no scheduler.
    pub async fn run(self, model: &ModelArguments, global: &Global) -> Result<()> {
        let host = self.host.clone().unwrap_or_else(|| self.bind.clone());
        let name = format!("{host}:{}", self.port);
        let (scheduler_host, scheduler_port) = self
            .scheduler
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host.to_string(), port.parse().ok()?)))
            .ok_or_else(|| Error::Input(format!("--scheduler {}: HOST:PORT is needed", self.scheduler)))?;
        // Before it has a name at the scheduler: an executor without its model never gets work.
        let engine = model.load(global, Some(name.clone()))?;
        let temporary;
        let folder = match &self.work_folder {
            Some(folder) => folder.as_path(),
            None => {
                temporary = tempfile::Builder::new()
                    .prefix("jointly-executor-")
                    .tempdir()
                    .map_err(|error| Error::file(&std::env::temp_dir(), &error))?;
                temporary.path()
            }
        };
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, &error))?;
        if !global.quiet {
            let info = engine.model().info();
            crate::say(format_args!(
                "executor {name}: model {} ({}), receipt {:?}, {}, {}, {}",
                engine.identity().model,
                info.source,
                info.receipt,
                info.precision,
                info.isa,
                info.device
            ));
        }
        let config = ExecutorProcessConfig {
            // With the process: one that is started again is another one.
            executor_id: format!("{name} process {}", std::process::id()),
            bind_host: self.bind,
            external_host: Some(host),
            port: self.port,
            scheduler_host,
            scheduler_port,
            scheduler_connect_timeout_seconds: 30,
            vcores: self.tasks,
            task_scheduling_policy: TaskSchedulingPolicy::PullStaged,
            work_dir: Some(folder.to_string_lossy().into_owned()),
            memory_pool_size: Some(self.memory << 20),
            override_function_registry: Some(Arc::new(registry(&engine))),
            override_config_producer: Some(Arc::new(config)),
            ..ExecutorProcessConfig::default()
        };
        start_executor_process(Arc::new(config))
            .await
            .map_err(|error| Error::Failed(format!("executor {name}: {error}")))
    }
}

fn registry(engine: &Arc<Engine>) -> BallistaFunctionRegistry {
    let mut registry = BallistaFunctionRegistry::default();
    let all = ballista_scalar_functions().into_iter().chain(functions(Some(engine)));
    registry.scalar_functions.extend(all.map(|function| (function.name().to_string(), function)));
    registry
}
