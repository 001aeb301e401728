//! The server, without its sockets: what is served now, and how another takes its place.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arc_swap::ArcSwap;
use http::Method;
use tokio::sync::Semaphore;

use crate::config::{Config, ConfigError, Load};
use crate::dialect::{DIALECTS, Dialect};
use crate::keys::Clients;
use crate::models::{Catalog, Stable};
use crate::pace::Pace;
use crate::service::{Service, queue_options};
use crate::{Failure, metrics};

/// What is served now; a reload puts another in its place, and requests keep theirs.
pub struct Live {
    /// The configuration.
    pub config: Arc<Config>,
    /// The models.
    pub catalog: Arc<Catalog>,
    /// Who may ask.
    pub clients: Clients,
}

/// Cascades that run at a time: each waits on a thread of its own while its pairs are scored. As many run of those that read beside
/// the queues, and as many of those that ask language models.
const MOST_CASCADES: usize = 64;

/// In which part of its life a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Models are being loaded.
    Starting,
    /// Requests are answered.
    Serving,
    /// What was accepted is finished.
    Draining,
}

/// Reads the configuration again.
pub type Reader = dyn Fn() -> Result<Config, ConfigError> + Send + Sync;

/// The server, without its sockets.
pub struct App {
    live: ArcSwap<Live>,
    pub(crate) service: Arc<Service>,
    pub(crate) routes: HashMap<String, Vec<Target>>,
    pub(crate) bodies: Arc<Semaphore>,
    pub(crate) failures: Pace,
    phase: AtomicU8,
    reader: Box<Reader>,
    reloading: tokio::sync::Mutex<()>,
}

/// What a path leads to.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) method: &'static Method,
    pub(crate) path: &'static str,
    pub(crate) dialect: &'static dyn Dialect,
}

impl App {
    /// A server that has loaded nothing yet.
    ///
    /// # Errors
    /// A cascade whose file cannot be served.
    pub fn new(config: Config, stable: Stable, reader: Box<Reader>) -> Result<Arc<Self>, ConfigError> {
        let mut routes: HashMap<String, Vec<Target>> = HashMap::new();
        for &dialect in DIALECTS {
            for route in dialect.routes() {
                let target = Target { method: route.method, path: route.path, dialect };
                for path in [route.path.to_string(), format!("/{}{}", dialect.name(), route.path)] {
                    routes.entry(path).or_default().push(target);
                }
            }
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let service = Service {
            stable,
            tokenizers: Arc::new(Semaphore::new(cores)),
            cascades: Arc::new(Semaphore::new(MOST_CASCADES)),
            cascades_beside: Arc::new(Semaphore::new(MOST_CASCADES)),
            cascades_asking: Arc::new(Semaphore::new(MOST_CASCADES)),
        };
        let bodies = Arc::new(Semaphore::new(config.limits.all_bodies_bytes));
        let live = Live {
            catalog: Arc::new(Catalog::new(&config)?),
            clients: Clients::new(&config.keys),
            config: Arc::new(config),
        };
        Ok(Arc::new(Self {
            live: ArcSwap::from_pointee(live),
            service: Arc::new(service),
            routes,
            bodies,
            failures: Pace::of(cores),
            phase: AtomicU8::new(Phase::Starting as u8),
            reader,
            reloading: tokio::sync::Mutex::default(),
        }))
    }

    /// What is served now.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// What loads models.
    #[must_use]
    pub fn stable(&self) -> &Stable {
        &self.service.stable
    }

    /// In which part of its life it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// Goes on to another part.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Loads the models that are to be there from the start. Takes its time.
    ///
    /// # Errors
    /// The first that cannot be loaded.
    pub fn load_models(&self, catalog: &Catalog, config: &Config) -> Result<(), Failure> {
        let options = queue_options(config);
        catalog.load_beside(&self.service.stable, config)?;
        for slot in catalog.slots().filter(|slot| slot.config.load == Load::Start) {
            self.service.stable.load(catalog, slot, &options).map_err(|failure| {
                let inside = format!(
                    "model {:?}: {}",
                    slot.name,
                    failure.inside.as_deref().unwrap_or(&failure.message)
                );
                Failure { inside: Some(inside), ..failure }
            })?;
        }
        catalog.try_cascades(&self.service.stable.cores)
    }

    /// Reads the configuration again and loads models, keys and calibration anew; all of it, or nothing. Requests go on meanwhile,
    /// and end with what they began with.
    ///
    /// # Errors
    /// Why everything is as it was.
    pub async fn reload(self: &Arc<Self>) -> Result<(), String> {
        let _only = self.reloading.lock().await;
        let this = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let config = (this.reader)().map_err(|error| error.to_string())?;
            let mut catalog = Catalog::new(&config).map_err(|error| error.to_string())?;
            catalog.go_on_from(&this.live().catalog);
            this.load_models(&catalog, &config)
                .map_err(|failure| failure.inside.unwrap_or(failure.message))?;
            let clients = this.live().clients.renewed(&config.keys);
            this.live.store(Arc::new(Live { clients, catalog: Arc::new(catalog), config: Arc::new(config) }));
            Ok(())
        });
        let result = task.await.map_err(|error| error.to_string()).and_then(|result| result);
        metrics::reload(result.is_ok());
        match &result {
            Ok(()) => tracing::info!("reloaded"),
            Err(problem) => tracing::error!(problem, "not reloaded; everything is as it was"),
        }
        result
    }
}
