//! The life of a server: it starts, is ready, serves, drains, ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::server::graceful::GracefulShutdown;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::{App, Phase, Reader};
use crate::config::{Address, Config};
use crate::listen::{Connections, Socket, tls};
use crate::metrics;
use crate::models::{Loader, Stable};

/// How often histograms are sorted and gauges set.
const UPKEEP: Duration = Duration::from_secs(5);

/// A server that listens.
pub struct Server {
    app: Arc<App>,
    sockets: Vec<Socket>,
    stop: watch::Sender<bool>,
}

/// What a running server is told.
#[derive(Clone)]
pub struct Handle {
    app: Arc<App>,
    stop: watch::Sender<bool>,
}

impl Handle {
    /// Finishes what was accepted, and ends.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Reads the configuration again and loads everything anew.
    ///
    /// # Errors
    /// Why everything is as it was.
    pub async fn reload(&self) -> Result<(), String> {
        self.app.reload().await
    }

    /// The requests that were taken in and are not answered yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.app
            .live()
            .catalog
            .slots()
            .filter_map(|slot| slot.loaded())
            .map(|loaded| loaded.queue.load().0)
            .sum()
    }

    /// Whether everything is there.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.app.phase() == Phase::Serving && self.app.live().catalog.ready().is_ok()
    }
}

impl Server {
    /// Listens where the configuration says. Nothing is loaded yet: `/livez` answers, `/readyz` says no.
    ///
    /// # Errors
    /// What cannot be listened on, or the certificate.
    pub async fn bind(config: Config, loader: Arc<dyn Loader>, reader: Box<Reader>) -> Result<Self, String> {
        metrics::install();
        let tls = tls(&config.tls).map_err(|error| error.to_string())?;
        let mut sockets = Vec::new();
        for (i, text) in config.listen.iter().enumerate() {
            let failed = |problem: String| format!("listen[{i}]: {text}: {problem}");
            let address = Address::parse(text).map_err(failed)?;
            let socket =
                Socket::bind(&address, tls.as_ref()).await.map_err(|error| failed(error.to_string()))?;
            sockets.push(socket);
        }
        let app = App::new(config, Stable { loader, cores: Arc::default() }, reader)
            .map_err(|error| error.to_string())?;
        Ok(Self { app, sockets, stop: watch::channel(false).0 })
    }

    /// Where TCP is listened on, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(Socket::address).collect()
    }

    /// What the server can be told while it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { app: Arc::clone(&self.app), stop: self.stop.clone() }
    }

    /// Loads the models and serves until it is stopped and what was accepted is done.
    ///
    /// # Errors
    /// A model that cannot be loaded at the start.
    pub async fn run(self) -> Result<(), String> {
        let Self { app, sockets, stop } = self;
        let config = Arc::clone(&app.live().config);
        let connections = Connections::new(Arc::clone(&app), &config.limits);
        // Sockets close only when requests are to be taken no more, which is later than not being ready.
        let (close, closing) = watch::channel(false);
        let graceful = Arc::new(GracefulShutdown::new());
        let mut accepting = JoinSet::new();
        for socket in sockets {
            let (connections, graceful, closing) =
                (connections.clone(), Arc::clone(&graceful), closing.clone());
            accepting.spawn(async move { connections.accept(socket, &graceful, closing).await });
        }
        let upkeep = tokio::spawn(keep_up(Arc::clone(&app)));
        let checks = tokio::spawn(check(Arc::clone(&app)));

        let began = Instant::now();
        let loading = {
            let app = Arc::clone(&app);
            tokio::task::spawn_blocking(move || {
                let live = app.live();
                app.load_models(&live.catalog, &live.config)
            })
        };
        let mut stopped = stop.subscribe();
        let loaded = tokio::select! {
            loaded = loading => Some(loaded),
            _ = stopped.wait_for(|stop| *stop) => None,
        };
        let result = match loaded {
            Some(Ok(Ok(()))) => {
                app.set_phase(Phase::Serving);
                tracing::info!(seconds = began.elapsed().as_secs_f64(), "ready");
                // An error says that nobody can stop it any more, and its sender lives in this function.
                let _ = stopped.wait_for(|stop| *stop).await;
                Ok(())
            }
            Some(Ok(Err(failure))) => Err(failure.inside.unwrap_or(failure.message)),
            Some(Err(error)) => Err(error.to_string()),
            None => Ok(()),
        };

        app.set_phase(Phase::Draining);
        let drain = app.live().config.drain.clone();
        tracing::info!(limit_seconds = drain.limit.as_secs_f64(), "draining");
        if result.is_ok() {
            tokio::time::sleep(drain.delay).await;
        }
        close.send_replace(true);
        while accepting.join_next().await.is_some() {}
        drop(connections);
        if let Some(graceful) = Arc::into_inner(graceful)
            && tokio::time::timeout(drain.limit, graceful.shutdown()).await.is_err()
        {
            tracing::warn!("not all that was accepted could be finished within drain.limit");
        }
        upkeep.abort();
        checks.abort();
        tracing::info!("ended");
        result
    }
}

async fn keep_up(app: Arc<App>) {
    let mut interval = tokio::time::interval(UPKEEP);
    loop {
        interval.tick().await;
        metrics::upkeep();
        app.live().catalog.measure();
    }
}

/// Checks every model from time to time.
async fn check(app: Arc<App>) {
    let mut last = Instant::now();
    loop {
        let every = app.live().config.health.self_check;
        if every.is_zero() {
            tokio::time::sleep(UPKEEP).await;
            continue;
        }
        tokio::time::sleep(every.min(UPKEEP)).await;
        let is_due = last.elapsed() >= every;
        if is_due {
            last = Instant::now();
        }
        let catalog = Arc::clone(&app.live().catalog);
        for slot in catalog.slots() {
            let Some(loaded) = slot.loaded() else { continue };
            if !is_due {
                continue;
            }
            let cores = Arc::clone(&app.stable().cores);
            let name = slot.name.clone();
            let task = tokio::task::spawn_blocking(move || loaded.queue.check(&cores));
            match task.await {
                Ok(Ok(())) => tracing::debug!(model = name, "the self-check holds"),
                Ok(Err(problem)) => {
                    tracing::error!(model = name, problem, "the self-check fails; the model is not ready")
                }
                Err(error) => tracing::error!(model = name, %error, "the self-check did not end"),
            }
        }
    }
}
