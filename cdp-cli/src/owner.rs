//! One owner a store: opening stores, and letting whoever owns one make the changes.
//!
//! A store has one owner or none. A command that changes a store opens it as its owner; when somebody owns it already, the
//! request goes to that owner through a socket outside of the store ([`address`]). Both ways end in [`execute()`], so there is
//! one code path for a change. A command that only reads asks a live owner to make everything durable, then opens the store
//! read-only beside it.

mod address;
mod client;
mod cursor_file;
mod execute;
mod import;
mod protocol;
mod replay;
mod resync;
mod server;

pub use execute::{Events, check_fits, execute};
pub use import::open_set;
pub use protocol::{
    FillText, FormatText, ImportRequest, ModeText, NewBookmarkRequest, ReplayRequest, Reply, Request,
    ResyncRequest, ScrubRequest, TapText, VerifyRequest,
};

use address::StoreAddress;

use crate::{
    exit::{Failure, Outcome},
    interrupt::Interrupt,
    output::diagnostic,
    progress::Bar,
};
use cdp_core::{
    Error, OpenOptions, Runner, RunnerOptions, Store,
    io::{DirectoryOptions, DirectoryStorage, Storage, ThrottledStorage},
};
use std::{
    io,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// How long a change waits for an owner that neither answers nor goes away: longer than another short command needs.
const OWNER_WAIT: Duration = Duration::from_secs(10);
const OWNER_POLL: Duration = Duration::from_millis(20);

/// How long a process owns a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// For one change of the metadata.
    Change,
    /// For one change that writes much.
    Load,
    /// Until it is told to end. All writes go through it, so it knows at any time that nothing else was written.
    Mount,
}

/// A store that this process owns, with its background work and its socket.
pub struct Owner {
    store: Store,
    runner: Option<Runner>,
    server: Option<server::Server>,
}

impl Owner {
    /// Opens a store as its owner and serves requests of other commands.
    ///
    /// # Errors
    /// [`Error::Owned`] when somebody else owns it, and all others of an open.
    pub fn open(path: &Path, role: Role) -> Result<Self, Error> {
        Self::open_throttled(path, role, None)
    }

    fn open_throttled(path: &Path, role: Role, throttle: Option<u64>) -> Result<Self, Error> {
        let storage = DirectoryStorage::open(path, DirectoryOptions::default());
        let storage =
            storage.map_err(|source| Error::io("open store", path.display().to_string(), source))?;
        let storage: Arc<dyn Storage> = match throttle {
            Some(bytes_per_second) => Arc::new(ThrottledStorage::new(Arc::new(storage), bytes_per_second)),
            None => Arc::new(storage),
        };
        let store = Store::open(storage, OpenOptions::default())?;
        report_tail(&store);
        report_damage(&store);
        Self::new(store, path, role)
    }

    /// Takes over a store that was just made or opened.
    ///
    /// # Errors
    /// `Io` when the threads of the background work cannot be started.
    pub fn new(store: Store, path: &Path, role: Role) -> Result<Self, Error> {
        let runner = match role {
            Role::Change => None,
            // A trace brings its own times, which the clock of this machine must not run ahead of.
            Role::Load => Some(store.start_runner_with(RunnerOptions { heartbeat: false })?),
            Role::Mount => Some(store.start_runner()?),
        };
        let server = match server::Server::start(store.clone(), path, role) {
            Ok(server) => Some(server),
            Err(error) => {
                diagnostic(&format!(
                    "cdp: other commands cannot make changes while this one runs: no socket for them ({error})"
                ));
                None
            }
        };
        Ok(Self { store, runner, server })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Finishes requests that are under way and closes the store.
    ///
    /// # Errors
    /// Those of a close.
    pub fn close(mut self) -> Result<(), Error> {
        if let Some(server) = self.server.take() {
            server.stop();
        }
        drop(self.runner);
        self.store.close()
    }
}

/// Makes a change: here when nobody owns the store, else through its owner.
///
/// # Errors
/// Those of the change; `Failed` when the store is owned by something that cannot be asked.
pub fn change(path: &Path, request: &Request, what: &'static str, interrupt: &Interrupt) -> Outcome<Reply> {
    let started = Instant::now();
    let address = StoreAddress::of(path).map_err(|source| Failure::io("open store", path, &source))?;
    let mut events = Console { bar: Bar::new(what), interrupt: interrupt.clone() };
    loop {
        match Owner::open_throttled(path, request.role(), request.throttle()) {
            Ok(owner) => {
                let reply = execute(owner.store(), request, &mut events);
                let closed = owner.close();
                // The failure of the change says more than that of the close behind it.
                return reply.and_then(|reply| closed.map(|()| reply).map_err(Into::into));
            }
            Err(Error::Owned) if request.throttle().is_some() && started.elapsed() > OWNER_WAIT => {
                return Err(Failure::new(
                    "the store is in use; --throttle needs it for itself, so stop its owner or leave --throttle out",
                ));
            }
            Err(Error::Owned) if request.throttle().is_some() => {
                thread::sleep(OWNER_POLL);
                continue;
            }
            Err(Error::Owned) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(client) = client::Client::connect(&address)? {
            match client.call(request, &mut events)? {
                client::Answer::Reply(reply) => return Ok(*reply),
                client::Answer::Closing => {}
            }
        }
        if started.elapsed() > OWNER_WAIT {
            return Err(Failure::new(
                "the store is in use by a process that takes no requests from this tool; stop it and try again",
            ));
        }
        thread::sleep(OWNER_POLL);
    }
}

/// Opens a store for reading, beside its owner when there is one.
///
/// # Errors
/// Those of an open.
pub fn open_reader(path: &Path) -> Outcome<Reader> {
    let address = StoreAddress::of(path).map_err(|source| Failure::io("open store", path, &source))?;
    let owner = ask_status(&address);
    let storage = DirectoryStorage::open_read_only(path, DirectoryOptions::default());
    let storage = storage.map_err(|source| Failure::io("open store", path, &source))?;
    let store = Store::open_read_only(Arc::new(storage), OpenOptions::default())?;
    // Beside a live owner the tail is what it is writing at this moment.
    if owner.is_none() {
        report_tail(&store);
    }
    report_damage(&store);
    Ok(Reader { store, owner })
}

/// A store that was opened for reading.
pub struct Reader {
    /// The store.
    pub store: Store,
    /// What its owner said, when it has one that answers.
    pub owner: Option<protocol::StatusReply>,
}

impl Reader {
    /// Ends a command that has described the store: damage that was met at the open may have changed the answer.
    ///
    /// # Errors
    /// `Damage` when there is any.
    pub fn finish(&self) -> Outcome {
        match self.store.recovery().damage.len() {
            0 => Ok(()),
            count => Err(Failure::damage(format!(
                "the store has {count} damaged ranges, so the answer may be incomplete; see cdp check"
            ))),
        }
    }
}

/// Makes everything durable at a live owner. Its absence is normal, its failure no reason not to read.
fn ask_status(address: &StoreAddress) -> Option<protocol::StatusReply> {
    let answer = client::Client::connect(address).and_then(|client| match client {
        Some(client) => client.call(&Request::Status, &mut Quiet).map(Some),
        None => Ok(None),
    });
    match answer {
        Ok(Some(client::Answer::Reply(reply))) => match *reply {
            Reply::Status(status) => Some(status),
            _ => None,
        },
        Ok(_) => None,
        Err(failure) => {
            diagnostic(&format!(
                "cdp: the owner of the store does not answer ({}); reading without it",
                failure.message
            ));
            None
        }
    }
}

/// Says what an open cut off.
fn report_tail(store: &Store) {
    let recovery = store.recovery();
    if recovery.tail_frames > 0 || recovery.tail_bytes > 0 {
        diagnostic(&format!(
            "cdp: a torn tail was cut: {} frames, {} bytes that were never acknowledged",
            recovery.tail_frames, recovery.tail_bytes
        ));
    }
}

/// Says what damage an open met.
fn report_damage(store: &Store) {
    for damage in &store.recovery().damage {
        diagnostic(&format!("cdp: {damage}"));
    }
}

/// Progress and notes on this process's terminal.
struct Console {
    bar: Bar,
    interrupt: Interrupt,
}

impl Events for Console {
    fn progress(&mut self, done: u64, total: u64) {
        self.bar.show(done, total);
    }

    fn note(&mut self, text: &str) {
        self.bar.note(text);
    }

    fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }
}

/// Nobody to tell.
struct Quiet;

impl Events for Quiet {
    fn progress(&mut self, _done: u64, _total: u64) {}

    fn note(&mut self, _text: &str) {}

    fn interrupt(&self) -> Interrupt {
        Interrupt::default()
    }
}

/// Resident memory of this process, bytes; 0 where the operating system does not say.
pub fn resident_bytes() -> u64 {
    let pages = || -> io::Result<u64> {
        let text = std::fs::read_to_string("/proc/self/statm")?;
        let resident = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        resident.ok_or_else(|| io::Error::other("unknown form"))
    };
    let page_bytes = u64::try_from(rustix::param::page_size()).unwrap_or(0);
    pages().unwrap_or(0).saturating_mul(page_bytes)
}
