//! A query, here or on a cluster.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ballista_core::error::BallistaError;
use ballista_core::execution_plans::DistributedQueryExec;
use ballista_core::extension::{SessionConfigExt, SessionStateExt};
use ballista_core::serde::protobuf::CancelJobParams;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use clap::Args;
use datafusion::catalog::DynamicFileCatalog;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{ObjectNamePart, visit_relations_mut};
use datafusion_proto::protobuf::LogicalPlanNode;
use futures::StreamExt;
use tonic::Code;

use crate::engine::{BATCH_ROWS, Engine, Scoring};
use crate::error::{Error, Fault, Result};
use crate::functions;
use crate::model::{Global, ModelArguments, ScoringArguments};
use crate::output::{Format, Output};
use crate::tables::{self, Files};

/// Pieces of a query on a cluster: enough that nobody waits for the last one, and little is lost with an executor.
const CLUSTER_PARTITIONS: usize = 64;

/// A query and what is done with it.
#[derive(Debug, Clone, Args)]
pub struct Query {
    /// The query: FROM 'pairs.parquet', FROM 'logs/*.jsonl'; with rerank_score(query, document) and its like
    #[arg(value_name = "SQL")]
    pub sql: Option<String>,
    /// Write here instead of to standard output: .parquet, .csv or .jsonl
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the output file
    #[arg(long, requires = "output")]
    pub force: bool,
    /// How rows are written [default: by the name of the file; a table on a terminal, else CSV]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Run it on the cluster of this scheduler
    #[arg(long, value_name = "HOST:PORT")]
    pub scheduler: Option<String>,
    /// Pieces that the query is run in [default: 1, which keeps the order of rows; on a cluster 64]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=65536))]
    pub partitions: Option<usize>,
    /// Memory for sorting and joining, in MiB; what needs more goes to temporary files
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(16..))]
    pub memory: usize,
}

impl Query {
    /// Runs the query and writes what it gives.
    ///
    /// # Errors
    /// If the query, its input, the model or the cluster is at fault; what is said names which.
    pub async fn run(
        self,
        model: &ModelArguments,
        scoring: &ScoringArguments,
        global: &Global,
    ) -> Result<()> {
        let Some(sql) = &self.sql else {
            return Err(Error::Input("a query is needed; --help shows one".into()));
        };
        let output = self.output.as_deref();
        Output::check(output, self.force)?;
        let format = match (self.format, output) {
            (Some(Format::Table), Some(_)) => {
                return Err(Error::Input("--format table is for standard output".into()));
            }
            (Some(Format::Parquet), None) => {
                return Err(Error::Input("--format parquet needs -o: it is not for standard output".into()));
            }
            (Some(format), _) => format,
            (None, Some(output)) => Format::of(output)?,
            (None, None) if std::io::stdout().is_terminal() => Format::Table,
            (None, None) => Format::Csv,
        };
        let mut scoring = scoring.scoring();
        // A query that scores nothing needs no model.
        let scores = sql.to_ascii_lowercase().contains("rerank");
        let (context, engine) = match &self.scheduler {
            Some(scheduler) => {
                if scores {
                    model.name_in(&mut scoring)?;
                }
                (self.on_cluster(scheduler, scoring).await?, None)
            }
            None => {
                let engine = if scores { Some(model.load(global, None)?) } else { None };
                (self.here(scoring, engine.as_ref())?, engine)
            }
        };
        let progress = engine.filter(|_| !global.quiet && std::io::stderr().is_terminal()).map(report);
        let done = run(&context, sql, output, format).await;
        if let Some(progress) = progress {
            progress.abort();
        }
        done
    }

    /// How long an interrupted query may take to end: a scheduler has to be told, a batch that is being scored here is not waited for.
    pub fn grace(&self) -> Duration {
        match self.scheduler {
            // The name of the job, the answer to its end, and what lies between.
            Some(_) => 2 * CANCEL + Duration::from_secs(1),
            None => Duration::from_millis(300),
        }
    }

    /// A session that runs queries in this process. One partition: the model uses all cores for a batch, and rows stay in their order.
    fn here(&self, scoring: Scoring, engine: Option<&Arc<Engine>>) -> Result<SessionContext> {
        let config =
            configure(SessionConfig::new(), scoring).with_target_partitions(self.partitions.unwrap_or(1));
        let pool = Arc::new(FairSpillPool::new(self.memory << 20));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?;
        let state = SessionStateBuilder::new()
            .with_default_features()
            .with_config(config)
            .with_runtime_env(runtime)
            .build();
        session(SessionContext::new_with_state(state), engine)
    }

    /// A session that hands its queries to a scheduler.
    async fn on_cluster(&self, scheduler: &str, scoring: Scoring) -> Result<SessionContext> {
        // Ballista says "transport error" and no more.
        if let Err(error) = tokio::net::TcpStream::connect(scheduler).await {
            return Err(Error::Failed(format!(
                "scheduler {scheduler}: {error}; `jointly-scheduler` starts one, and HOST:PORT names it"
            )));
        }
        let url = format!("http://{scheduler}");
        let config = configure(SessionConfig::new_with_ballista(), scoring)
            .with_extension(Arc::new(SchedulerUrl(url.clone())))
            .with_target_partitions(self.partitions.unwrap_or(CLUSTER_PARTITIONS))
            .with_ballista_job_name("jointly sql")
            // A file is split however small it is: its rows take long.
            .set_usize("datafusion.optimizer.repartition_file_min_size", 1)
            // The name of a job comes when it is taken in, and not with its end: without one it could not be cancelled.
            .set_bool("ballista.client.pull", true)
            // Whoever has time takes the next piece, and no more than one.
            .set_usize("ballista.scheduler.max_partitions_per_task", 1);
        let state = SessionStateBuilder::new().with_default_features().with_config(config).build();
        let state = state.upgrade_for_ballista(url)?;
        session(SessionContext::new_with_state(state), None)
    }
}

fn configure(config: SessionConfig, scoring: Scoring) -> SessionConfig {
    config
        .with_batch_size(BATCH_ROWS)
        .with_option_extension(scoring)
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false)
        .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
        // Names of columns are as in the files.
        .set_bool("datafusion.sql_parser.enable_ident_normalization", false)
}

/// The session with files as tables, and with the functions.
fn session(context: SessionContext, engine: Option<&Arc<Engine>>) -> Result<SessionContext> {
    let state = context.state();
    let files = Arc::new(Files::new(state.clone()));
    let catalogs = DynamicFileCatalog::new(Arc::clone(state.catalog_list()), files);
    let mut state =
        SessionStateBuilder::new_from_existing(state).with_catalog_list(Arc::new(catalogs)).build();
    functions::register(&mut state, engine)?;
    Ok(SessionContext::new_with_state(state))
}

/// A session in this process with a model, for programs and tests.
///
/// # Errors
/// If DataFusion cannot be set up.
pub fn local(engine: &Arc<Engine>, scoring: Scoring) -> Result<SessionContext> {
    let config = configure(SessionConfig::new(), scoring).with_target_partitions(1);
    let state = SessionStateBuilder::new().with_default_features().with_config(config).build();
    session(SessionContext::new_with_state(state), Some(engine))
}

/// Runs a query in a session, and writes what it gives.
///
/// # Errors
/// As [`Query::run`].
pub async fn run(context: &SessionContext, sql: &str, output: Option<&Path>, format: Format) -> Result<()> {
    // What is written is said by -o: a query only reads.
    let allowed = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let state = context.state();
    let mut statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
    if state.config().get_extension::<SchedulerUrl>().is_some() {
        name_files(&mut statement);
    }
    let plan = state.statement_to_plan(statement).await?;
    allowed.verify_plan(&plan)?;
    let frame = context.execute_logical_plan(plan).await?;
    let mut done = write(frame.clone(), output, format).await;
    // Nobody does the pieces of a finished job again when an executor dies with them. A file can be begun anew, what was printed cannot.
    // Once: if the executors cannot be reached at all, it is no use.
    if let Err(Failure::Query(error)) = &done
        && output.is_some()
        && is_lost(error)
    {
        crate::say(format_args!("the output could not be fetched: {error}; the query is run once more"));
        done = write(frame.clone(), output, format).await;
    }
    match done {
        Ok(()) => Ok(()),
        Err(error) => {
            let fault = match &error {
                Failure::Query(error) => Fault::find(&error.to_string()),
                Failure::Other(_) => None,
            };
            let Some(Fault { column: Some(column), message, .. }) = fault else { return Err(error.into()) };
            // That it cannot be found does not change what is wrong.
            let place = tables::locate(frame.logical_plan(), &column).await.ok().flatten();
            Err(Error::Input(match place {
                Some((place, true)) => format!("{place}: {message}"),
                Some((place, false)) => {
                    format!("{message}; the first null or empty one in the file is {place}")
                }
                None => message,
            }))
        }
    }
}

/// Writes the names of files as paths. On its way to a scheduler a name becomes text, and `pairs.parquet` would be read there as the table
/// `parquet` of a schema `pairs`; a name with a slash is read as it is.
fn name_files(statement: &mut Statement) {
    match statement {
        Statement::Statement(statement) => {
            let _ = visit_relations_mut(statement, |relation| {
                if let [ObjectNamePart::Identifier(name)] = &mut relation.0[..]
                    && name.value.contains('.')
                    && !name.value.contains('/')
                {
                    name.value.insert_str(0, "./");
                }
                ControlFlow::<()>::Continue(())
            });
        }
        Statement::Explain(explain) => name_files(&mut explain.statement),
        _ => {}
    }
}

/// Whether what a cluster computed could not be fetched from an executor.
fn is_lost(error: &DataFusionError) -> bool {
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.any(|cause| {
        // It could be reached, and then broke off.
        if let Some(status) = cause.downcast_ref::<tonic::Status>() {
            return matches!(status.code(), Code::Unknown | Code::Unavailable | Code::Internal | Code::Cancelled);
        }
        // It could be reached, and had nothing.
        if let Some(error) = cause.downcast_ref::<BallistaError>() {
            return matches!(error, BallistaError::FetchFailed(..));
        }
        // It could not be reached: Ballista has only a text for it. A job that failed says so first, whatever it failed of.
        matches!(cause.downcast_ref(), Some(DataFusionError::Execution(text)) if text.starts_with("GrpcConnectionError("))
    })
}

enum Failure {
    Query(DataFusionError),
    Other(Error),
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Self {
        Self::Query(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Query(error) => error.into(),
            Failure::Other(error) => error,
        }
    }
}

async fn write(frame: DataFrame, output: Option<&Path>, format: Format) -> std::result::Result<(), Failure> {
    if crate::is_interrupted() {
        return Err(Error::Interrupted.into());
    }
    let schema = Arc::clone(frame.schema().inner());
    let mut output = Output::open(output, format, &schema)?;
    let context = Arc::new(frame.task_ctx());
    let plan = frame.create_physical_plan().await?;
    let mut batches = execute_stream(Arc::clone(&plan), Arc::clone(&context))?;
    let run = async {
        while let Some(batch) = batches.next().await.transpose()? {
            output.write(&batch)?;
        }
        Ok(output.finish()?)
    };
    tokio::pin!(run);
    let job = || plan.downcast_ref::<DistributedQueryExec<LogicalPlanNode>>().map(|query| query.job_id());
    let done = tokio::select! {
        biased;
        () = crate::interrupted() => {
            // It may be on its way to the scheduler, and has no name yet by which it could be cancelled.
            let has_name = async { while job() == Some(None) { tokio::time::sleep(Duration::from_millis(10)).await } };
            let ended = tokio::select! {
                done = &mut run => Some(done),
                _ = tokio::time::timeout(CANCEL, has_name) => None,
            };
            ended.unwrap_or(Err(Error::Interrupted.into()))
        }
        done = &mut run => done,
    };
    // The executors would go on for nobody.
    if done.is_err()
        && let (Some(scheduler), Some(job)) =
            (context.session_config().get_extension::<SchedulerUrl>(), job())
    {
        let cancelled = match job {
            Some(job) => tokio::time::timeout(CANCEL, cancel(&scheduler, job.as_str())).await,
            None => Ok(Err("it has no name yet".into())),
        };
        // A job that failed goes on nowhere.
        if let (Err(Failure::Other(_)), Err(_) | Ok(Err(_))) = (&done, cancelled) {
            crate::say(format_args!("{}: could not be told; the job may go on there", scheduler.0));
        }
    }
    done
}

/// How long a scheduler may take to name a job, and to cancel it.
const CANCEL: Duration = Duration::from_millis(1500);

/// Where a session's queries run, if not in this process.
struct SchedulerUrl(String);

/// Has a job's pieces handed out no more.
async fn cancel(scheduler: &SchedulerUrl, job: &str) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut client = SchedulerGrpcClient::connect(scheduler.0.clone()).await?;
    client.cancel_job(CancelJobParams { job_id: job.to_string() }).await?;
    Ok(())
}

/// Says twice a second how many pairs have been scored.
pub fn report(engine: Arc<Engine>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let started = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let scored = engine.scored();
            let rate = scored as f64 / started.elapsed().as_secs_f64();
            // Over itself, and gone when the output follows.
            eprint!("\r{scored} pairs, {rate:.0}/s   \r");
        }
    })
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::error::ArrowError;

    use super::*;

    #[test]
    fn what_was_lost_is_told_from_what_is_wrong() {
        let text = |text: &str| DataFusionError::Execution(text.into());
        let status = |code| -> DataFusionError {
            ArrowError::from_external_error(Box::new(tonic::Status::new(code, "h2 protocol error"))).into()
        };
        let fetch = BallistaError::FetchFailed("executor".into(), 1, 2, "transport error".into());
        for error in [
            text("GrpcConnectionError(\"Error connecting to Ballista scheduler or executor at http://a:1\")"),
            status(Code::Unknown),
            status(Code::Internal).context("in a stream"),
            fetch.into_datafusion(),
        ] {
            assert!(is_lost(&error), "{error}");
        }
        for error in [
            // A scheduler that is gone.
            text("tonic::transport::Error(Transport, ConnectError(..))"),
            text("Status { code: Unavailable, message: \"tcp connect error\" }"),
            text("Job 7 failed: GrpcConnectionError(\"Error connecting\")"),
            DataFusionError::Plan("no such column".into()),
            Fault::input("column query is null").into(),
            // A batch that is too large stays so.
            status(Code::OutOfRange),
            BallistaError::General("GrpcConnectionError(".into()).into_datafusion(),
        ] {
            assert!(!is_lost(&error), "{error}");
        }
    }
}
