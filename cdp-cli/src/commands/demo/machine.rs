//! What the machine can do, and the programs and mounts that the demo uses of it.
//!
//! Invariant *undone in reverse*: a loop device or a mount ends when its value is dropped, if not before.

use crate::{
    exit::{Failure, Outcome},
    interrupt::Interrupt,
};
use rustix::{mount::UnmountFlags, process::geteuid};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// Where programs of the system lie when the path of the user leaves them out.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];
/// How often a file system that is still in use is tried again.
const UNMOUNT_TRIES: u32 = 20;
const UNMOUNT_POLL: Duration = Duration::from_millis(100);

/// The first thing that the machine lacks for a mount with the kernel's file system on it.
pub fn lacks() -> Option<String> {
    if !geteuid().is_root() {
        return Some("this is not root".to_owned());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if !Path::new(device).exists() {
            return Some(format!("there is no {device}"));
        }
    }
    for program in ["losetup", "mkfs.ext4", "e2fsck", "mount"] {
        if find(program).is_none() {
            return Some(format!("there is no program {program}"));
        }
    }
    let file_systems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let known = |name: &str| file_systems.lines().any(|line| line.split_whitespace().last() == Some(name));
    (!known("ext4") && !known("ext3")).then(|| "the kernel has no ext4".to_owned())
}

/// Finds a program.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = SYSTEM_DIRECTORIES.iter().map(PathBuf::from);
    let mut candidates = std::env::split_paths(&path).chain(system).map(|directory| directory.join(program));
    candidates.find(|candidate| candidate.is_file())
}

/// Runs a program to its end and returns what it printed.
pub fn run(program: &str, arguments: &[&OsStr]) -> Outcome<String> {
    let path = find(program).ok_or_else(|| Failure::new(format!("there is no program {program}")))?;
    let output = Command::new(path)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Failure::new(format!("run {program}: {source}")))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("{program} failed ({}): {}", output.status, complaint.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether `e2fsck -fn` finds nothing wrong with an image; `None` when there is no such program.
pub fn is_clean(image: &Path) -> Option<bool> {
    find("e2fsck")?;
    Some(run("e2fsck", &[OsStr::new("-fn"), image.as_os_str()]).is_ok())
}

/// A loop device.
pub struct Loop {
    device: Option<PathBuf>,
}

impl Loop {
    /// Puts a device before a file.
    pub fn new(file: &Path) -> Outcome<Self> {
        let printed = run("losetup", &[OsStr::new("--find"), OsStr::new("--show"), file.as_os_str()])?;
        Ok(Self { device: Some(PathBuf::from(printed.trim())) })
    }

    /// The device.
    pub fn path(&self) -> &Path {
        self.device.as_deref().unwrap_or(Path::new(""))
    }

    /// Takes the device away.
    pub fn end(mut self) -> Outcome {
        self.detach()
    }

    fn detach(&mut self) -> Outcome {
        match self.device.take() {
            Some(device) => run("losetup", &[OsStr::new("-d"), device.as_os_str()]).map(drop),
            None => Ok(()),
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // What failed before is the failure that is reported.
        let _ = self.detach();
    }
}

/// A mounted file system.
pub struct FileSystem {
    directory: Option<PathBuf>,
}

impl FileSystem {
    /// Mounts a device, with options.
    pub fn mount(device: &Path, directory: &Path, options: &str) -> Outcome<Self> {
        std::fs::create_dir_all(directory).map_err(|source| Failure::io("make", directory, &source))?;
        let arguments = [
            OsStr::new("-t"),
            OsStr::new("ext4"),
            OsStr::new("-o"),
            OsStr::new(options),
            device.as_os_str(),
            directory.as_os_str(),
        ];
        run("mount", &arguments)?;
        Ok(Self { directory: Some(directory.to_owned()) })
    }

    /// Unmounts it.
    pub fn end(mut self) -> Outcome {
        self.unmount()
    }

    fn unmount(&mut self) -> Outcome {
        let Some(directory) = self.directory.take() else { return Ok(()) };
        for _ in 0..UNMOUNT_TRIES {
            match rustix::mount::unmount(&directory, UnmountFlags::NOFOLLOW) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::BUSY) => thread::sleep(UNMOUNT_POLL),
                Err(error) => return Err(Failure::io("unmount", &directory, &error.into())),
            }
        }
        rustix::mount::unmount(&directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .map_err(|error| Failure::io("unmount", &directory, &error.into()))
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // What failed before is the failure that is reported.
        let _ = self.unmount();
    }
}

/// Ends early when the user wants it.
pub fn check(interrupt: &Interrupt) -> Outcome {
    interrupt.check().map_err(|_| Failure::new("interrupted"))
}
