//! The agent: the machine with a memory on disk, a ledger, a provider, a hook and customers.
//!
//! One thread owns the machine. It takes events, writes what changed, flushes it, and only then hands
//! out what is to be done; tasks do it and come back with further events.

use std::{
    collections::HashMap, net::SocketAddr, path::PathBuf, sync::Arc, thread, time::Duration,
};

use daybook_client::Client;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time,
};

use crate::{
    Moment, announce,
    hook::Hook,
    journal::{Journal, JournalError},
    ledger,
    machine::{Announcement, Effect, Event, Machine, NotMine},
    order::Order,
    provider,
    request::{Code, OrderError, OrderRequest},
    seed::Seed,
    server::{self, Server},
    sockets::{Batch, Complaint, Saying},
    terms::Terms,
    web::{NotAUrl, Url, Web, WebError},
};

/// Events that wait for the machine's thread: more wait where they come from.
const INPUTS_MAX: usize = 1024;
/// Events taken in before one flush.
const BATCH_MAX: usize = 64;
/// Steps whose words wait for the sockets' task, which only hands them on.
const SAYINGS_MAX: usize = 1024;
/// Longest sleep of the machine's thread: clocks may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// Lines of progress that wait for the machine.
const PROGRESS_MAX: usize = 64;

/// What an agent is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens, HTTP and sockets.
    pub listen: SocketAddr,
    /// The address that browsers reach it at, where it is another one.
    pub public_url: Option<Url>,
    /// Certificate chain and key in PEM, for TLS.
    pub tls: Option<(Vec<u8>, zeroize::Zeroizing<Vec<u8>>)>,
    /// Where its memory is kept; one directory for each machine.
    pub data_dir: PathBuf,
    /// Its secret.
    pub seed: Seed,
    /// The node whose ledger it uses.
    pub ledger: Client,
    /// Certificates to trust at provider and hook instead of the public roots, in PEM.
    pub ca_file: Option<PathBuf>,
    /// How it does business.
    pub terms: Terms,
    /// What does the work; `None` for no work at all.
    pub hook: Option<Hook>,
    /// How long the work of one order may take.
    pub work_within: Duration,
    /// Web pages that may use its sockets: origins, with `*` for any port.
    pub allowed_origins: Vec<String>,
    /// Orders that one address may place in a minute.
    pub orders_per_minute: u32,
}

impl Config {
    /// Where browsers reach it; none where it listens on every address and was told no name.
    fn url(&self, bound: SocketAddr) -> Option<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        match &self.public_url {
            Some(url) => Some(url.to_string()),
            None if bound.ip().is_unspecified() => None,
            None => Some(format!("{scheme}://{bound}")),
        }
    }
}

/// Why a machine does not run.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The memory cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The memory is another machine's.
    #[error(transparent)]
    NotMine(#[from] NotMine),
    /// The port cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// The provider's address is none.
    #[error("the provider: {0}")]
    Provider(#[from] NotAUrl),
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(String),
    /// The certificates to trust cannot be used.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The operating system gives no thread.
    #[error("starting a thread: {0}")]
    Thread(std::io::Error),
}

/// A machine that runs.
#[derive(Debug)]
pub struct Agent {
    address: SocketAddr,
    inputs: mpsc::Sender<Input>,
    tasks: JoinSet<()>,
    server: Server,
    thread: Option<thread::JoinHandle<()>>,
    ended: oneshot::Receiver<Result<(), JournalError>>,
}

/// What comes to the machine's thread.
pub(crate) enum Input {
    Event(Event),
    Order(OrderRequest, oneshot::Sender<Answer>),
    Announced(String, Announcement, oneshot::Sender<Answer>),
    Look(Look),
    Stop,
}

/// A look at the machine.
type Look = Box<dyn FnOnce(&Machine) + Send>;

/// The order, or why there is none.
pub(crate) type Answer = Result<Box<Order>, OrderError>;

impl From<Event> for Input {
    fn from(event: Event) -> Input {
        Input::Event(event)
    }
}

/// The way from customers to the machine.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    inputs: mpsc::Sender<Input>,
}

impl Door {
    pub(crate) async fn order(&self, request: OrderRequest) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.ask(Input::Order(request, answer), answered).await
    }

    pub(crate) async fn announce(&self, order: String, payment: Announcement) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.ask(Input::Announced(order, payment, answer), answered)
            .await
    }

    async fn ask(&self, input: Input, answered: oneshot::Receiver<Answer>) -> Answer {
        let stopping = || OrderError::new(Code::LedgerUnavailable, "the machine is stopping");
        if self.inputs.send(input).await.is_err() {
            return Err(stopping());
        }
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Looks at the machine; `None` when it has stopped.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Machine) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let look = move |machine: &Machine| {
            let _ = answer.send(look(machine));
        };
        self.inputs.send(Input::Look(Box::new(look))).await.ok()?;
        answered.await.ok()
    }
}

/// Runs a machine until `shutdown` is done.
///
/// # Errors
/// [`MachineError`] when it cannot start or go on.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), MachineError> {
    let mut agent = Agent::start(config).await?;
    tokio::select! {
        ended = agent.failed() => {
            let _ = agent.stop().await;
            Err(ended)
        }
        () = shutdown => agent.stop().await,
    }
}

impl Agent {
    /// Starts a machine: opens its memory, listens, and looks for the ledger. Must run in a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`MachineError`].
    pub async fn start(config: Config) -> Result<Agent, MachineError> {
        let provider = config.terms.provider.as_deref();
        let provider: Option<Url> = provider.map(str::parse).transpose()?;
        let web = Web::new(config.ca_file.as_deref())?;
        let (journal, state) = Journal::open(&config.data_dir)?;
        let cursor = state.meta.cursor;
        let machine = Machine::new(config.terms.clone(), config.seed.clone(), state)?;
        let listen = |error| MachineError::Listen {
            address: config.listen,
            error,
        };
        let socket = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = socket.local_addr().map_err(listen)?;
        let (inputs, waiting) = mpsc::channel(INPUTS_MAX);
        let (words, sayings) = mpsc::channel(SAYINGS_MAX);
        let door = Door {
            inputs: inputs.clone(),
        };
        let server = server::start(socket, &config, door, sayings, machine.greeting())?;
        let mut tasks = JoinSet::new();
        tasks.spawn(ledger::follow(
            config.ledger.clone(),
            config.terms.asset,
            config.seed.clone(),
            config.terms.open_orders_max,
            cursor,
            Duration::from_millis(config.terms.confirm_poll_ms.max(1)),
            inputs.clone(),
        ));
        if let Some(url) = config.url(address) {
            tasks.spawn(announce::run(
                config.ledger.clone(),
                config.terms.name.clone(),
                config.terms.role.clone(),
                url,
            ));
        }
        let shell = Shell {
            machine,
            journal,
            tickets: HashMap::new(),
            next_ticket: 0,
            words,
            doing: Doing {
                client: config.ledger.clone(),
                asset: config.terms.asset,
                web,
                provider,
                hook: config.hook.clone().map(Arc::new),
                work_within: config.work_within,
                inputs: inputs.clone(),
                runtime: Handle::current(),
            },
        };
        let (end, ended) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("machine".to_owned())
            .spawn(move || {
                let result = shell.run(waiting);
                let _ = end.send(result);
            })
            .map_err(MachineError::Thread)?;
        Ok(Agent {
            address,
            inputs,
            tasks,
            server,
            thread: Some(thread),
            ended,
        })
    }

    /// Where it listens, after port 0 became a real one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it cannot go on.
    pub async fn failed(&mut self) -> MachineError {
        match (&mut self.ended).await {
            Ok(Err(error)) => error.into(),
            _ => MachineError::Thread(std::io::Error::other("the machine's thread ended")),
        }
    }

    /// Stops it: nothing new is taken, and what is under way goes on at the next start.
    ///
    /// # Errors
    /// [`MachineError`] when its memory could not be written.
    pub async fn stop(mut self) -> Result<(), MachineError> {
        self.server.stop().await;
        self.tasks.abort_all();
        let _ = self.inputs.send(Input::Stop).await;
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                return Err(MachineError::Thread(std::io::Error::other(
                    "the machine's thread panicked",
                )));
            }
        }
        match self.ended.try_recv() {
            Ok(Err(error)) => Err(error.into()),
            // It ended well, or how it ended was told before.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

/// The machine's thread.
struct Shell {
    machine: Machine,
    journal: Journal,
    tickets: HashMap<u64, oneshot::Sender<Answer>>,
    next_ticket: u64,
    words: mpsc::Sender<Batch>,
    doing: Doing,
}

impl Shell {
    fn run(mut self, mut inputs: mpsc::Receiver<Input>) -> Result<(), JournalError> {
        let runtime = self.doing.runtime.clone();
        loop {
            let now = Moment::now();
            let sleep = self
                .machine
                .wake()
                .map_or(SLEEP_MAX, |wake| now.until(wake).min(SLEEP_MAX));
            let first = runtime.block_on(async { time::timeout(sleep, inputs.recv()).await });
            let mut stop = false;
            let mut looks = Vec::new();
            match first {
                Ok(None) => return Ok(()),
                Ok(Some(input)) => {
                    let mut next = Some(input);
                    let mut taken = 0;
                    while let Some(input) = next {
                        taken += 1;
                        stop |= self.take(input, &mut looks);
                        if stop || taken == BATCH_MAX {
                            break;
                        }
                        next = inputs.try_recv().ok();
                    }
                }
                Err(_) => self.machine.handle(Event::Tick, Moment::now()),
            }
            let (records, effects) = self.machine.step();
            if !records.is_empty() {
                // Nothing is done, and nothing is told, before it is on disk.
                self.journal.append(&records, &self.machine.state)?;
            }
            self.perform(effects);
            // What is looked at is on disk too.
            for look in looks {
                look(&self.machine);
            }
            if stop {
                return Ok(());
            }
        }
    }

    fn take(&mut self, input: Input, looks: &mut Vec<Look>) -> bool {
        let event = match input {
            Input::Event(event) => event,
            Input::Order(request, answer) => Event::Order {
                ticket: self.ticket(answer),
                id: uuid(),
                request,
            },
            Input::Announced(order, payment, answer) => Event::Announced {
                ticket: self.ticket(answer),
                order,
                payment,
            },
            Input::Look(look) => {
                looks.push(look);
                return false;
            }
            Input::Stop => return true,
        };
        self.machine.handle(event, Moment::now());
        false
    }

    fn ticket(&mut self, answer: oneshot::Sender<Answer>) -> u64 {
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, answer);
        self.next_ticket
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let mut batch = Batch {
            sayings: Vec::new(),
            complaints: Vec::new(),
            greeting: self.machine.greeting(),
        };
        for effect in effects {
            match effect {
                Effect::Reply { ticket, answer } => {
                    if let Some(waiting) = self.tickets.remove(&ticket) {
                        let _ = waiting.send(answer);
                    }
                }
                Effect::Say { event, body } => batch.sayings.push(Saying { event, body }),
                Effect::Complain {
                    order,
                    client_ref,
                    error,
                } => batch.complaints.push(Complaint {
                    order,
                    client_ref,
                    error,
                }),
                other => self.doing.begin(other),
            }
        }
        // The sockets' task ends before this thread does; then nobody listens.
        let _ = self.words.blocking_send(batch);
    }
}

/// What effects are done with.
struct Doing {
    client: Client,
    asset: daybook_ledger::AssetId,
    web: Web,
    provider: Option<Url>,
    hook: Option<Arc<Hook>>,
    work_within: Duration,
    inputs: mpsc::Sender<Input>,
    runtime: Handle,
}

impl Doing {
    /// Begins something; its end comes back as an event.
    fn begin(&self, effect: Effect) {
        let inputs = self.inputs.clone();
        let client = self.client.clone();
        match effect {
            Effect::Ask { number, repeat_key } => {
                let (web, provider, asset) = (self.web.clone(), self.provider.clone(), self.asset);
                self.runtime.spawn(async move {
                    let answer = match provider {
                        Some(url) => provider::order(&web, &url, asset, &repeat_key).await,
                        None => Err("there is no provider any more".to_owned()),
                    };
                    let _ = inputs.send(Event::Provided { number, answer }.into()).await;
                });
            }
            Effect::Submit { transaction, text } => {
                self.runtime.spawn(async move {
                    let fate = ledger::submit(&client, text).await;
                    let settled = Event::Settled { transaction, fate };
                    let _ = inputs.send(settled.into()).await;
                });
            }
            Effect::Check { number, key } => {
                let asset = self.asset;
                self.runtime.spawn(async move {
                    let transactions = ledger::listed(&client, asset, &key).await.ok();
                    let checked = Event::Checked {
                        number,
                        transactions,
                    };
                    let _ = inputs.send(checked.into()).await;
                });
            }
            Effect::Work { number, order } => {
                let (web, hook, within) = (self.web.clone(), self.hook.clone(), self.work_within);
                self.runtime.spawn(async move {
                    let (lines, mut heard) = mpsc::channel(PROGRESS_MAX);
                    let work = async {
                        match hook {
                            Some(hook) => hook.run(&web, &order, within, lines).await,
                            None => Ok(String::new()),
                        }
                    };
                    let progress = async {
                        while let Some(text) = heard.recv().await {
                            let progress = Event::Progress { number, text };
                            let _ = inputs.send(progress.into()).await;
                        }
                    };
                    let (outcome, ()) = tokio::join!(work, progress);
                    let _ = inputs.send(Event::Worked { number, outcome }.into()).await;
                });
            }
            Effect::Reply { .. } | Effect::Say { .. } | Effect::Complain { .. } => {}
        }
    }
}

/// A random UUID (RFC 9562, version 4).
fn uuid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
