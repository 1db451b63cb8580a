//! The side of a command that asks the owner of a store.

use super::{
    address::StoreAddress,
    execute::Events,
    protocol::{Message, Reply, Request, receive, send},
};
use crate::exit::{Failure, Outcome};
use rustix::{net::sockopt::socket_peercred, process::geteuid};
use std::{
    io::{self, BufReader},
    os::unix::net::UnixStream,
    time::Duration,
};

/// How long the owner may be silent: it reports at least that often, unless it hangs.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A connection to an owner.
pub struct Client(UnixStream);

/// How an owner answered.
pub enum Answer {
    /// With a reply.
    Reply(Box<Reply>),
    /// It is closing the store and did nothing.
    Closing,
}

impl Client {
    /// Connects to the owner of the store at `address`; `None` when there is none that listens.
    ///
    /// # Errors
    /// `Failed` when there is one that this user may not talk to.
    pub fn connect(address: &StoreAddress) -> Outcome<Option<Self>> {
        for socket in address.for_client() {
            match UnixStream::connect(&socket) {
                Ok(connection) => return Self::checked(connection).map(Some),
                // A socket without a listener was left behind by an owner that was killed.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                }
                Err(error) => {
                    return Err(Failure::io("connect to the owner of the store at", &socket, &error));
                }
            }
        }
        Ok(None)
    }

    fn checked(connection: UnixStream) -> Outcome<Self> {
        let peer = socket_peercred(&connection)
            .map_err(|error| Failure::new(format!("ask for the owner: {error}")))?;
        let euid = geteuid();
        if !(peer.uid.is_root() || peer.uid == euid || euid.is_root()) {
            return Err(Failure::new("the socket of the store's owner belongs to another user"));
        }
        connection
            .set_read_timeout(Some(SILENCE_MAX))
            .map_err(|error| Failure::new(format!("talk to the owner of the store: {error}")))?;
        Ok(Self(connection))
    }

    /// Asks, passes on what the owner says, and returns its answer.
    ///
    /// # Errors
    /// The failure that the owner answers; `Failed` when it goes away or is silent for too long.
    pub fn call(mut self, request: &Request, events: &mut dyn Events) -> Outcome<Answer> {
        let lost = |error: io::Error| {
            Failure::new(format!(
                "lost the owner of the store before it answered ({error}); see what was done and try again"
            ))
        };
        send(&mut self.0, request).map_err(lost)?;
        let interrupt = events.interrupt();
        let mut connection = BufReader::new(self.0);
        loop {
            if interrupt.is_set() {
                // The owner notices that nobody listens, and ends the work.
                return Err(Failure::new("interrupted"));
            }
            match receive(&mut connection).map_err(lost)? {
                Message::Progress { done, total } => events.progress(done, total),
                Message::Note(text) if text.is_empty() => {}
                Message::Note(text) => events.note(&text),
                Message::Reply(reply) => return Ok(Answer::Reply(Box::new(reply))),
                Message::Failure(failure) => return Err(failure),
                Message::Closing => return Ok(Answer::Closing),
            }
        }
    }
}
