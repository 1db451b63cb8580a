//! The side of the owner: takes requests from a socket, one thread for each connection.
//!
//! Invariants:
//! - *own users only*: a peer is root or the user of this process;
//! - *bounded*: at most [`CONNECTIONS_MAX`] connections; one more is told to come back;
//! - *finished*: [`Server::stop`] returns only when no request is under way; long ones are interrupted.

use super::{
    Role,
    address::StoreAddress,
    execute::{Events, execute},
    protocol::{Message, Reply, Request, receive, send},
};
use crate::{exit::Failure, interrupt::Interrupt};
use cdp_core::Store;
use parking_lot::{Condvar, Mutex};
use rustix::{net::sockopt::socket_peercred, process::geteuid};
use std::{
    fs,
    io::{self, BufReader},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Most connections at a time.
const CONNECTIONS_MAX: usize = 16;
/// How long a client may take over its request, and over reading what it is sent.
const PEER_WAIT: Duration = Duration::from_secs(10);
/// Most extents of a verification that are sent: as many as one message holds.
const EXTENTS_SENT_MAX: usize = 16_384;
/// How often progress is sent.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// How often a client hears from an owner at work, whether there is news or not.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(10);

/// A socket that takes requests, until it is stopped.
pub struct Server {
    path: PathBuf,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    store: Store,
    role: Role,
    /// Set when the owner closes; ends requests that take long.
    closing: Interrupt,
    connections: Mutex<usize>,
    ended: Condvar,
}

impl Server {
    /// Begins to take requests for the store at `path`, which this process owns.
    ///
    /// # Errors
    /// Those of making the socket.
    pub fn start(store: Store, path: &Path, role: Role) -> io::Result<Self> {
        let path = StoreAddress::of(path)?.for_owner()?;
        // Whoever left it there is gone: this process owns the store.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        let shared = Arc::new(Shared {
            store,
            role,
            closing: Interrupt::default(),
            connections: Mutex::new(0),
            ended: Condvar::new(),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("cdp-owner".to_owned()).spawn(move || accept(&listener, &shared))?
        };
        Ok(Self { path, shared, accepting: Some(accepting) })
    }

    /// Takes no more requests, ends those that are under way, and removes the socket.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.shared.closing.set();
        // Wakes the thread that accepts. When nothing can connect any more it is not waiting either.
        let _ = UnixStream::connect(&self.path);
        let _ = fs::remove_file(&self.path);
        let _ = accepting.join();
        let mut connections = self.shared.connections.lock();
        while *connections > 0 {
            self.shared.ended.wait(&mut connections);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if shared.closing.is_set() {
            if let Ok((mut connection, _)) = accepted {
                let _ = send(&mut connection, &Message::Closing);
            }
            return;
        }
        let Ok((connection, _)) = accepted else {
            // No descriptors left, most likely; others may be closed meanwhile.
            thread::sleep(PROGRESS_EVERY);
            continue;
        };
        {
            let mut connections = shared.connections.lock();
            if *connections == CONNECTIONS_MAX {
                drop(connections);
                // The client waits and tries again, as it does when an owner closes.
                let _ = send(&mut &connection, &Message::Closing);
                continue;
            }
            *connections += 1;
        }
        let ended = Ended(Arc::clone(shared));
        let spawned = thread::Builder::new().name("cdp-request".to_owned()).spawn(move || {
            // A peer that misbehaves or goes away is its own problem.
            let _ = serve(connection, &ended.0);
        });
        // Without a thread the connection was dropped with its closure, and the count went down with it.
        drop(spawned);
    }
}

/// Counts a connection as ended when it is dropped.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        *self.0.connections.lock() -= 1;
        self.0.ended.notify_all();
    }
}

fn serve(connection: UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    connection.set_read_timeout(Some(PEER_WAIT))?;
    connection.set_write_timeout(Some(PEER_WAIT))?;
    let peer = socket_peercred(&connection)?;
    if !(peer.uid.is_root() || peer.uid == geteuid()) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let request: Request = receive(&mut BufReader::new(&connection))?;
    if shared.closing.is_set() {
        return send(&mut &connection, &Message::Closing);
    }
    if request == Request::Status && shared.role == Role::Mount {
        // When it fails the reader sees what is durable, which is right too.
        let _ = shared.store.heartbeat();
    }
    let mut remote = Remote::new(connection, &shared.closing)?;
    let outcome = match request {
        // The kernel knows the sizes of what is mounted, and is not asked again.
        Request::ResizeVolume { .. } if shared.role == Role::Mount => Err(Failure::new(
            "the store is mounted, and sizes cannot be changed while it is; unmount it first",
        )),
        request => execute(&shared.store, &request, &mut remote),
    };
    let message = match outcome {
        Ok(Reply::Verify(mut found)) => {
            let listed = found.extents.len().min(EXTENTS_SENT_MAX);
            found.extents_left_out = u64::try_from(found.extents.len() - listed).map_err(io::Error::other)?;
            found.extents.truncate(listed);
            Message::Reply(Reply::Verify(found))
        }
        Ok(Reply::Scrub(mut scrubbed)) => {
            let mut left = EXTENTS_SENT_MAX / 4;
            for list in [&mut scrubbed.damaged, &mut scrubbed.found] {
                let listed = list.len().min(left);
                scrubbed.left_out += u64::try_from(list.len() - listed).map_err(io::Error::other)?;
                list.truncate(listed);
                left -= listed;
            }
            Message::Reply(Reply::Scrub(scrubbed))
        }
        Ok(reply) => Message::Reply(reply),
        Err(failure) => Message::Failure(failure),
    };
    remote.end(&message)
}

/// Progress and notes for a command on the other side of a connection.
struct Remote {
    connection: Arc<Mutex<UnixStream>>,
    /// Set when the owner closes or the client has gone.
    interrupt: Interrupt,
    shown: Option<Instant>,
    over: Arc<(Mutex<bool>, Condvar)>,
    heartbeat: Option<JoinHandle<()>>,
}

impl Remote {
    /// Begins to tell the client that the owner is alive, and to look whether the client still is.
    fn new(connection: UnixStream, closing: &Interrupt) -> io::Result<Self> {
        let interrupt = Interrupt::default();
        let connection = Arc::new(Mutex::new(connection));
        let over = Arc::new((Mutex::new(false), Condvar::new()));
        let heartbeat = {
            let (connection, over) = (Arc::clone(&connection), Arc::clone(&over));
            let (interrupt, closing) = (interrupt.clone(), closing.clone());
            thread::Builder::new()
                .name("cdp-heartbeat".to_owned())
                .spawn(move || heartbeat(&connection, &over, &interrupt, &closing))?
        };
        Ok(Self { connection, interrupt, shown: None, over, heartbeat: Some(heartbeat) })
    }

    fn send(&mut self, message: &Message) {
        if send(&mut *self.connection.lock(), message).is_err() {
            self.interrupt.set();
        }
    }

    fn end(mut self, message: &Message) -> io::Result<()> {
        self.stop_heartbeat();
        send(&mut *self.connection.lock(), message)
    }

    fn stop_heartbeat(&mut self) {
        *self.over.0.lock() = true;
        self.over.1.notify_all();
        if let Some(heartbeat) = self.heartbeat.take() {
            let _ = heartbeat.join();
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.stop_heartbeat();
    }
}

/// Sends an empty note now and then, so that silence means a hanging owner, and passes on that the owner closes.
fn heartbeat(
    connection: &Mutex<UnixStream>,
    over: &(Mutex<bool>, Condvar),
    interrupt: &Interrupt,
    closing: &Interrupt,
) {
    let mut last = Instant::now();
    let mut ended = over.0.lock();
    while !*ended {
        over.1.wait_for(&mut ended, PROGRESS_EVERY);
        if closing.is_set() {
            interrupt.set();
        }
        if last.elapsed() >= SIGN_OF_LIFE_EVERY {
            last = Instant::now();
            if send(&mut *connection.lock(), &Message::Note(String::new())).is_err() {
                interrupt.set();
            }
        }
    }
}

impl Events for Remote {
    fn progress(&mut self, done: u64, total: u64) {
        if self.shown.is_none_or(|shown| shown.elapsed() >= PROGRESS_EVERY) {
            self.shown = Some(Instant::now());
            self.send(&Message::Progress { done, total });
        }
    }

    fn note(&mut self, text: &str) {
        self.send(&Message::Note(text.to_owned()));
    }

    fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }
}
