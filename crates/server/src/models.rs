//! The models of a process: by name, loaded at the start or when asked for, replaced without a pause.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jointly::BiEncoder;
use jointly::rank::listwise::OnePass;

use crate::cascade::{self, Asking, Beside, Plan};
use crate::config::{Config, ConfigError, Load, ModelConfig};
use crate::cores::{Cores, give_way};
use crate::engine::Engine;
use crate::queue::{Queue, QueueOptions};
use crate::{Failure, FailureKind, LoadedCard, ModelCard, metrics};

/// After a model could not be loaded on demand, so long nobody tries again.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Where models come from.
pub trait Loader: Send + Sync + 'static {
    /// Loads a model, its receipt checked. Takes its time: never on a thread that answers clients.
    ///
    /// # Errors
    /// Why not, for whoever runs the server.
    fn load(&self, name: &str, model: &ModelConfig) -> Result<Arc<dyn Engine>, String>;

    /// Loads a bi-encoder that a cascade reads with.
    ///
    /// # Errors
    /// Why not, for whoever runs the server.
    fn bi_encoder(&self, model: &ModelConfig) -> Result<Arc<BiEncoder>, String> {
        Err(format!("{}: this server loads no bi-encoders", model.source))
    }

    /// Loads a model that reads a list in one pass, for a cascade.
    ///
    /// # Errors
    /// Why not, for whoever runs the server.
    fn one_pass(&self, model: &ModelConfig) -> Result<Arc<OnePass>, String> {
        Err(format!("{}: this server loads no models that read a list in one pass", model.source))
    }

    /// What its weights will take in memory, as far as that is known before it is loaded.
    fn bytes(&self, model: &ModelConfig) -> Option<u64> {
        let _ = model;
        None
    }
}

/// A model in memory. Requests hold it; when the last one lets go, its thread ends.
#[derive(Debug)]
pub struct Loaded {
    /// The pairs that wait for it.
    pub queue: Arc<Queue>,
    /// Memory that is reckoned for its weights.
    pub bytes: u64,
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.queue.close();
    }
}

#[derive(Debug, Default)]
enum Place {
    #[default]
    Empty,
    /// It is being loaded, and will take so many bytes.
    Coming(u64),
    Loaded(Arc<Loaded>),
    Failed(Instant),
}

/// A model of the configuration.
#[derive(Debug)]
pub struct Slot {
    /// Its name there.
    pub name: String,
    /// What is said of it there.
    pub config: ModelConfig,
    place: RwLock<Place>,
    loading: Arc<tokio::sync::Mutex<()>>,
    used: AtomicU64,
}

impl Slot {
    fn new(name: &str, config: &ModelConfig) -> Self {
        Self {
            name: name.to_string(),
            config: config.clone(),
            place: RwLock::default(),
            loading: Arc::default(),
            used: AtomicU64::new(0),
        }
    }

    /// The model, if it is in memory.
    #[must_use]
    pub fn loaded(&self) -> Option<Arc<Loaded>> {
        match &*self.place.read().unwrap_or_else(PoisonError::into_inner) {
            Place::Loaded(loaded) => Some(Arc::clone(loaded)),
            _ => None,
        }
    }

    /// Memory that its weights take, or will.
    fn bytes(&self) -> u64 {
        match &*self.place.read().unwrap_or_else(PoisonError::into_inner) {
            Place::Loaded(loaded) => loaded.bytes,
            Place::Coming(bytes) => *bytes,
            Place::Empty | Place::Failed(_) => 0,
        }
    }

    fn failed_lately(&self) -> bool {
        let place = self.place.read().unwrap_or_else(PoisonError::into_inner);
        matches!(&*place, Place::Failed(at) if at.elapsed() < PAUSE_AFTER_FAILURE)
    }

    fn put(&self, place: Place) {
        *self.place.write().unwrap_or_else(PoisonError::into_inner) = place;
    }

    /// Whether it can be used now; a model that is loaded on demand can before it is loaded.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self.loaded() {
            Some(loaded) => loaded.queue.problem().is_none(),
            None => self.config.load == Load::Demand && !self.failed_lately(),
        }
    }
}

/// What a client's name is for.
#[derive(Debug, Clone, Copy)]
pub enum Named<'c> {
    /// A model.
    Model(&'c Arc<Slot>),
    /// Several, one after the other.
    Cascade(&'c Arc<Plan>),
}

/// All models of a configuration, and cascades of them.
#[derive(Debug)]
pub struct Catalog {
    slots: BTreeMap<String, Arc<Slot>>,
    plans: BTreeMap<String, Arc<Plan>>,
    /// What the plans read with that is no slot, once it is loaded.
    beside: OnceLock<Arc<Beside>>,
    names: BTreeMap<String, String>,
    default: String,
    any_name: bool,
    limit_bytes: u64,
    /// Bytes of the longest text that is taken in.
    text_bytes: usize,
    /// All language models that cascades have asked since the process began, each with what it may still cost.
    asking: Vec<Asking>,
    /// Held by whoever takes memory, so that no two take the same.
    room: Mutex<()>,
}

impl Catalog {
    /// Those of a configuration; none is loaded.
    ///
    /// # Errors
    /// A cascade whose file cannot be served.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let (models, plans) = config.read_cascades()?;
        let mut catalog = Self {
            slots: models
                .iter()
                .map(|(name, model)| (name.clone(), Arc::new(Slot::new(name, model))))
                .collect(),
            plans,
            beside: OnceLock::new(),
            names: config.names.clone(),
            default: config.default_model.clone(),
            any_name: config.any_model_name,
            limit_bytes: config.limits.models_bytes,
            text_bytes: config.limits.document_bytes,
            asking: Vec::new(),
            room: Mutex::default(),
        };
        catalog.go_on_with(Vec::new());
        Ok(catalog)
    }

    /// What a client's name is for; the default without a name.
    ///
    /// # Errors
    /// [`FailureKind::UnknownModel`].
    pub fn find(&self, name: Option<&str>) -> Result<Named<'_>, Failure> {
        let wanted = name.unwrap_or(&self.default);
        let wanted = self.names.get(wanted).map_or(wanted, String::as_str);
        let known = |name: &str| {
            let model = self.slots.get(name).map(Named::Model);
            model.or_else(|| self.plans.get(name).map(Named::Cascade))
        };
        let is_any = self.any_name && !wanted.is_empty();
        let found = known(wanted).or_else(|| is_any.then(|| known(&self.default)).flatten());
        found.ok_or_else(|| unknown(wanted))
    }

    /// The model of this name in the configuration.
    ///
    /// # Errors
    /// [`FailureKind::UnknownModel`].
    pub fn slot(&self, name: &str) -> Result<&Arc<Slot>, Failure> {
        self.slots.get(name).ok_or_else(|| unknown(name))
    }

    /// The models of a cascade, one for each reader, if all are in memory.
    fn loaded(&self, plan: &Plan) -> Option<Vec<Arc<Loaded>>> {
        plan.readers.iter().map(|reader| self.slots.get(&reader.model)?.loaded()).collect()
    }

    /// Goes on with the language models of another configuration, where cascades ask them the same, whatever they are called.
    pub fn go_on_from(&mut self, old: &Self) {
        self.go_on_with(old.asking.clone());
    }

    fn go_on_with(&mut self, mut known: Vec<Asking>) {
        for plan in self.plans.values_mut() {
            // Nobody else has it yet.
            if let Some(plan) = Arc::get_mut(plan) {
                plan.go_on_with(&mut known);
            }
        }
        self.asking = known;
    }

    /// What cascades read with beside the queues; nothing, before it is loaded.
    #[must_use]
    pub fn beside(&self) -> Arc<Beside> {
        self.beside.get().cloned().unwrap_or_default()
    }

    /// Loads what cascades read with beside the queues, before the models of the queues share the memory that is left.
    ///
    /// # Errors
    /// The first that cannot be loaded, with the reason inside.
    pub fn load_beside(&self, stable: &Stable, config: &Config) -> Result<(), Failure> {
        let mut beside = Beside::new(config);
        let mut taken = 0_u64;
        for need in self.plans.values().flat_map(|plan| &plan.beside) {
            if beside.has(need) {
                continue;
            }
            let (began, name) = (Instant::now(), need.label());
            let fail = |problem: String| {
                tracing::error!(model = name, problem, "a model cannot be loaded");
                Failure::new(FailureKind::Unavailable, "the model cannot be loaded")
                    .inside(format!("model {name:?}: {problem}"))
            };
            let bytes = stable.loader.bytes(need.config()).unwrap_or(0);
            taken = taken.saturating_add(bytes);
            if self.limit_bytes > 0 && taken > self.limit_bytes {
                return Err(fail(format!(
                    "it and those before it take {taken} bytes; the limit is {}",
                    self.limit_bytes
                )));
            }
            let model = stable.load_aside(|| need.load(&*stable.loader)).map_err(fail)?;
            beside.add(need, model, bytes);
            tracing::info!(model = name, seconds = began.elapsed().as_secs_f64(), "loaded");
        }
        // Once for each catalogue.
        let _ = self.beside.set(Arc::new(beside));
        Ok(())
    }

    /// Tries every cascade whose models are in memory.
    ///
    /// # Errors
    /// The first that cannot be run, with the reason inside.
    pub fn try_cascades(&self, cores: &Arc<Cores>) -> Result<(), Failure> {
        for plan in self.plans.values() {
            let Some(loaded) = self.loaded(plan) else { continue };
            cascade::try_out(plan, &loaded, self.beside(), cores).map_err(|problem| {
                Failure::new(FailureKind::Unavailable, "a cascade cannot be run")
                    .inside(format!("cascades.{}: {problem}", plan.name))
            })?;
        }
        Ok(())
    }

    /// All models.
    pub fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.slots.values()
    }

    /// Whether all models that should be there are, and hold.
    ///
    /// # Errors
    /// What is missing, for the body of `/readyz`.
    pub fn ready(&self) -> Result<(), String> {
        for slot in self.slots() {
            let problem = match slot.loaded() {
                Some(loaded) => loaded.queue.problem(),
                None if slot.config.load == Load::Start => Some("is being loaded".into()),
                None => None,
            };
            if let Some(problem) = problem {
                return Err(format!("model {:?}: {problem}", slot.name));
            }
        }
        Ok(())
    }

    /// What clients may know.
    #[must_use]
    pub fn cards(&self) -> Vec<ModelCard> {
        let named = |name: &str| ModelCard {
            name: name.to_string(),
            aliases: self.names.iter().filter(|(_, to)| *to == name).map(|(name, _)| name.clone()).collect(),
            is_default: name == self.default,
            stages: Vec::new(),
            loaded: None,
        };
        let card = |loaded: &Arc<Loaded>| {
            let mut card = loaded.queue.engine().card().clone();
            card.is_healthy = loaded.queue.problem().is_none();
            card
        };
        let model =
            |slot: &Arc<Slot>| ModelCard { loaded: slot.loaded().as_ref().map(card), ..named(&slot.name) };
        let beside = self.beside();
        let cascade = |plan: &Arc<Plan>| {
            if plan.readers.is_empty() {
                let loaded = plan.card(&beside, self.text_bytes);
                return ModelCard { loaded, stages: plan.stages.clone(), ..named(&plan.name) };
            }
            let cards: Vec<_> = self.loaded(plan).unwrap_or_default().iter().map(card).collect();
            let is_healthy = cards.iter().all(|card| card.is_healthy);
            let last = cards.into_iter().next_back();
            ModelCard {
                loaded: last.map(|card| LoadedCard { is_healthy, ..card }),
                stages: plan.stages.clone(),
                ..named(&plan.name)
            }
        };
        self.slots().map(model).chain(self.plans.values().map(cascade)).collect()
    }

    /// Says to the metrics how it stands.
    pub fn measure(&self) {
        for slot in self.slots() {
            let loaded = slot.loaded();
            metrics::model(
                &slot.name,
                loaded.is_some() && slot.is_ready(),
                loaded.as_ref().map_or(0, |loaded| loaded.bytes),
            );
            if let Some(loaded) = loaded {
                metrics::queue(&slot.name, loaded.queue.load());
            }
        }
        self.beside().sizes().for_each(|(name, bytes)| metrics::model(&name, true, bytes));
    }

    /// Makes room for the `bytes` of a model by letting go of models that are loaded on demand and that nobody uses, the longest unused
    /// first; they are its own from then on.
    fn make_room(&self, wanting: &Slot, bytes: u64) -> Result<(), Failure> {
        let _room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let beside: u64 = self.beside().sizes().map(|(_, bytes)| bytes).sum();
        loop {
            let others = || self.slots().filter(|slot| slot.name != wanting.name);
            let taken = others().map(|slot| slot.bytes()).fold(beside, u64::saturating_add);
            if self.limit_bytes == 0 || taken.saturating_add(bytes) <= self.limit_bytes {
                wanting.put(Place::Coming(bytes));
                return Ok(());
            }
            let loaded: Vec<(&Arc<Slot>, Arc<Loaded>)> =
                others().filter_map(|slot| Some((slot, slot.loaded()?))).collect();
            let idle = loaded
                .iter()
                .filter(|(slot, loaded)| slot.config.load == Load::Demand && loaded.queue.load().0 == 0)
                .min_by_key(|(slot, _)| slot.used.load(Ordering::Relaxed));
            let Some((slot, _)) = idle else {
                let problem = format!(
                    "{taken} bytes of models are in memory and {bytes} more are needed; the limit is {}",
                    self.limit_bytes
                );
                wanting.put(Place::Empty);
                return Err(Failure::new(FailureKind::Unavailable, "there is no memory for this model now")
                    .inside(problem)
                    .retry_after(Duration::from_secs(5)));
            };
            tracing::info!(model = slot.name, "unloaded, to make room for another");
            slot.put(Place::Empty);
        }
    }
}

fn unknown(name: &str) -> Failure {
    let shown: String = name.chars().take(100).collect();
    Failure::new(FailureKind::UnknownModel, format!("model '{shown}' not found")).field("model")
}

/// What loads models into a catalogue.
#[derive(Clone)]
pub struct Stable {
    /// Where models come from.
    pub loader: Arc<dyn Loader>,
    /// What they compute on.
    pub cores: Arc<Cores>,
}

impl Stable {
    /// The model of a slot; loads it if it is to be loaded on demand.
    ///
    /// # Errors
    /// [`FailureKind::Unavailable`] while it is not to be had.
    pub async fn get(
        &self,
        catalog: &Arc<Catalog>,
        slot: &Arc<Slot>,
        options: &QueueOptions,
    ) -> Result<Arc<Loaded>, Failure> {
        static CLOCK: AtomicU64 = AtomicU64::new(1);
        slot.used.store(CLOCK.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let unavailable = |message: &str| {
            Failure::new(FailureKind::Unavailable, message).retry_after(Duration::from_secs(2))
        };
        let loaded = match slot.loaded() {
            Some(loaded) => loaded,
            None if slot.config.load == Load::Start => return Err(unavailable("the model is being loaded")),
            None => {
                let loading = Arc::clone(&slot.loading).lock_owned().await;
                match slot.loaded() {
                    Some(loaded) => loaded,
                    None if slot.failed_lately() => return Err(unavailable("the model cannot be loaded")),
                    None => {
                        // Goes on even if the client leaves: the next one will want it too, and waits for this one.
                        let (this, catalog, slot, options) =
                            (self.clone(), Arc::clone(catalog), Arc::clone(slot), options.clone());
                        let task = tokio::task::spawn_blocking(move || {
                            let loaded = this.load(&catalog, &slot, &options);
                            drop(loading);
                            loaded
                        });
                        task.await.map_err(|error| {
                            unavailable("the model cannot be loaded").inside(error.to_string())
                        })??
                    }
                }
            }
        };
        match loaded.queue.problem() {
            None => Ok(loaded),
            Some(problem) => {
                Err(unavailable("the model does not hold what it promises and is not used").inside(problem))
            }
        }
    }

    /// Loads on a thread that takes turns with those that score for others meanwhile.
    fn load_aside<T: Send>(&self, load: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
        std::thread::scope(|scope| {
            let loading = std::thread::Builder::new().name("jointly-load".into()).spawn_scoped(scope, || {
                give_way();
                load()
            });
            let loading = loading.map_err(|error| error.to_string())?;
            loading.join().map_err(|_| "loading panicked".to_string())?
        })
    }

    /// Loads the model of a slot, on this thread.
    ///
    /// # Errors
    /// [`FailureKind::Unavailable`], with the reason inside.
    pub fn load(
        &self,
        catalog: &Catalog,
        slot: &Slot,
        options: &QueueOptions,
    ) -> Result<Arc<Loaded>, Failure> {
        let began = Instant::now();
        let fail = |problem: String| {
            tracing::error!(model = slot.name, problem, "a model cannot be loaded");
            slot.put(Place::Failed(Instant::now()));
            Failure::new(FailureKind::Unavailable, "the model cannot be loaded")
                .inside(problem)
                .retry_after(PAUSE_AFTER_FAILURE)
        };
        let expected = self.loader.bytes(&slot.config).unwrap_or(0);
        catalog.make_room(slot, expected)?;
        let engine = self.load_aside(|| self.loader.load(&slot.name, &slot.config)).map_err(fail)?;
        let card = engine.card().clone();
        let each = match card.precision.as_str() {
            "int8" => 1,
            "bf16" => 2,
            _ => 4,
        };
        let bytes = expected.max(card.parameters as u64 * each);
        // It may be larger than its files say.
        catalog.make_room(slot, bytes)?;
        let queue = Queue::start(engine, Arc::clone(&self.cores), options.clone())
            .map_err(|error| fail(error.to_string()))?;
        let loaded = Arc::new(Loaded { queue, bytes });
        slot.put(Place::Loaded(Arc::clone(&loaded)));
        tracing::info!(
            model = slot.name,
            architecture = card.architecture,
            precision = card.precision,
            parameters = card.parameters,
            identity = card.identity,
            seconds = began.elapsed().as_secs_f64(),
            "loaded"
        );
        Ok(loaded)
    }
}
