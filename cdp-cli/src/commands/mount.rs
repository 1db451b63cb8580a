//! `cdp mount`: serves a store as a file system until it is unmounted, or told to end.
//!
//! Invariant *clean end*: however it ends, short of a kill, the file system is unmounted first, then everything is made
//! durable and the store is closed. When something still uses the mount, it is detached: what was written is safe, and the
//! user of it gets errors from then on.

use crate::{
    args::MountArguments,
    exit::{Failure, Outcome},
    fuse::{StoreFilesystem, THREADS},
    output,
    owner::{Owner, Role},
};
use fuser::{Config, MountOption, Session, SessionACL};
use rustix::{mount::UnmountFlags, process::geteuid};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

/// How long a mount that is in use is waited for before it is detached.
const BUSY_WAIT: Duration = Duration::from_secs(2);
const BUSY_POLL: Duration = Duration::from_millis(100);
/// How long the serving threads may take to notice that the file system is gone.
const SESSION_END_WAIT: Duration = Duration::from_secs(5);

/// Runs the command.
pub fn run(arguments: &MountArguments) -> Outcome {
    // Signals are taken over first, so that none ends the process between opening the store and closing it.
    let (sender, events) = channel();
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|source| Failure::new(format!("take over signals: {source}")))?;
    watch_signals(signals, sender.clone())?;
    let directory = prepare_directory(&arguments.directory)?;
    let owner = Owner::open(&arguments.store, Role::Mount)?;
    let mounted = Mounted::start(&owner, &arguments.store, directory, sender).and_then(|mounted| {
        let ready = format!("mounted {} on {}\n", arguments.store.display(), mounted.directory.display());
        output::print(&ready)?;
        Ok(mounted)
    });
    let served = mounted.and_then(|mounted| mounted.serve(&events));
    let closed = owner.close();
    served?;
    closed?;
    Ok(())
}

/// What a running mount waits for.
pub enum Event {
    /// A signal to end.
    Signal,
    /// The file system is no longer served: it was unmounted, or serving it failed.
    Ended(io::Result<()>),
}

/// A file system that is mounted and served by threads of its own.
pub struct Mounted {
    directory: PathBuf,
}

impl Mounted {
    /// Mounts the store of `owner` on a directory; `sender` hears when it is no longer served.
    ///
    /// # Errors
    /// `Failed` when it cannot be mounted.
    pub fn start(
        owner: &Owner,
        store_path: &Path,
        directory: PathBuf,
        sender: Sender<Event>,
    ) -> Outcome<Self> {
        let filesystem = StoreFilesystem::new(owner.store().clone(), store_path);
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("cdp".to_owned()),
            MountOption::Subtype("cdp".to_owned()),
            MountOption::NoDev,
            MountOption::NoSuid,
            MountOption::NoAtime,
            // The kernel holds users against the owner and mode of each node, as on any other file system.
            MountOption::DefaultPermissions,
        ];
        config.acl = if geteuid().is_root() { SessionACL::All } else { SessionACL::Owner };
        config.n_threads = Some(THREADS);
        let failed = |source: io::Error| {
            Failure::new(format!(
                "mount on {}: {source}; FUSE needs /dev/fuse, and fusermount3 for users other than root",
                directory.display()
            ))
        };
        let session = Session::new(filesystem, &directory, &config).map_err(failed)?;
        let mut serving = session.spawn().map_err(failed)?;
        let threads = std::mem::replace(&mut serving.guard, thread::spawn(|| Ok(())));
        // What is left of it would unmount the directory once more when the session ends, by its path, and hit whatever
        // was mounted there meanwhile. This command unmounts by itself.
        std::mem::forget(serving);
        thread::Builder::new()
            .name("cdp-mount".to_owned())
            .spawn(move || {
                let ended =
                    threads.join().unwrap_or_else(|_| Err(io::Error::other("a serving thread panicked")));
                // Nobody listens any more when the command has given up waiting.
                let _ = sender.send(Event::Ended(ended));
            })
            .map_err(failed)?;
        Ok(Self { directory })
    }

    /// Serves until it is unmounted or a signal arrives; then unmounts.
    ///
    /// # Errors
    /// `Failed` when serving failed.
    pub fn serve(self, events: &Receiver<Event>) -> Outcome {
        match events.recv() {
            Ok(Event::Ended(ended)) => {
                ended.map_err(|source| Failure::new(format!("serve the mount: {source}")))
            }
            Ok(Event::Signal) | Err(_) => self.end(events),
        }
    }

    /// Unmounts, and detaches what is still in use.
    ///
    /// # Errors
    /// `Failed` when serving failed.
    pub fn end(self, events: &Receiver<Event>) -> Outcome {
        if !unmount(&self.directory) {
            output::diagnostic(&format!(
                "cdp: {} is still in use and is detached; what uses it gets errors from now on",
                self.directory.display()
            ));
            detach(&self.directory);
            return Ok(());
        }
        loop {
            match events.recv_timeout(SESSION_END_WAIT) {
                Ok(Event::Ended(ended)) => {
                    return ended.map_err(|source| Failure::new(format!("serve the mount: {source}")));
                }
                Ok(Event::Signal) => {}
                // Detached by somebody else, and still in use there.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }
}

fn watch_signals(mut signals: Signals, sender: Sender<Event>) -> Outcome {
    thread::Builder::new()
        .name("cdp-signals".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                if sender.send(Event::Signal).is_err() {
                    return;
                }
            }
        })
        .map(drop)
        .map_err(|source| Failure::new(format!("take over signals: {source}")))
}

/// Looks at the directory to mount on, and clears away a mount whose server was killed.
pub fn prepare_directory(path: &Path) -> Outcome<PathBuf> {
    let found = match path.metadata() {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOTCONN.raw_os_error()) => {
            output::diagnostic(&format!(
                "cdp: {} was left mounted by a process that is gone; detached",
                path.display()
            ));
            detach(path);
            path.metadata()
        }
        found => found,
    };
    let metadata = found.map_err(|source| Failure::io("mount on", path, &source))?;
    if !metadata.is_dir() {
        return Err(Failure::new(format!("{} is not a directory", path.display())));
    }
    path.canonicalize().map_err(|source| Failure::io("mount on", path, &source))
}

/// Unmounts; false when the mount is still in use after a moment.
fn unmount(directory: &Path) -> bool {
    let mut waited = Duration::ZERO;
    loop {
        match rustix::mount::unmount(directory, UnmountFlags::NOFOLLOW) {
            Err(rustix::io::Errno::BUSY) if waited < BUSY_WAIT => {
                thread::sleep(BUSY_POLL);
                waited += BUSY_POLL;
            }
            Err(rustix::io::Errno::PERM) => return fusermount(directory, &["-u", "-q"]),
            Err(rustix::io::Errno::BUSY) => return false,
            // Gone already, most likely.
            _ => return true,
        }
    }
}

/// Takes the mount out of the tree; it ends when its last user does.
fn detach(directory: &Path) {
    if rustix::mount::unmount(directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_err() {
        fusermount(directory, &["-u", "-q", "-z"]);
    }
}

/// The helper that may unmount for users other than root.
fn fusermount(directory: &Path, options: &[&str]) -> bool {
    ["fusermount3", "fusermount"].iter().any(|program| {
        let status = Command::new(program).args(options).arg("--").arg(directory).status();
        status.is_ok_and(|status| status.success())
    })
}
