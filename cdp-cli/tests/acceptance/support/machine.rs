//! Mounts, loop devices and file systems that are taken down again whatever happens to the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::command::{Ran, cdp_command, peak_resident_kib, program, wait_within};

/// How long a mount may take to appear, also after a crash on a loaded machine.
const MOUNT_LIMIT: Duration = Duration::from_secs(60);

/// A running `cdp mount`.
pub struct Mount {
    child: Option<Child>,
    pub directory: PathBuf,
    diagnostics: PathBuf,
    /// From the start of the process until the volume could be seen.
    pub open_time: Duration,
}

impl Mount {
    /// Mounts a store and waits until its volume `disk` is there.
    #[track_caller]
    pub fn start(store: &Path, directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("make the mount point");
        let diagnostics = directory.with_extension("stderr");
        let stderr = fs::File::create(&diagnostics).expect("a file for the diagnostics");
        let mut command = cdp_command();
        command.arg("mount").arg(store).arg(directory).stdout(Stdio::null()).stderr(stderr);
        let started = Instant::now();
        let child = command.spawn().expect("start the mount");
        let mut mount = Self {
            child: Some(child),
            directory: directory.to_owned(),
            diagnostics,
            open_time: Duration::ZERO,
        };
        while !mount.disk("disk").exists() {
            let ended = mount.child.as_mut().expect("running").try_wait().expect("look at the mount");
            assert!(ended.is_none(), "the mount ended: {ended:?}\n{}", mount.diagnostics());
            assert!(started.elapsed() < MOUNT_LIMIT, "the mount did not appear:\n{}", mount.diagnostics());
            thread::sleep(Duration::from_millis(2));
        }
        mount.open_time = started.elapsed();
        mount
    }

    /// The live image of a volume.
    pub fn disk(&self, volume: &str) -> PathBuf {
        self.directory.join(volume).join("disk")
    }

    /// The read-only image of a volume at a point.
    pub fn point(&self, volume: &str, point: &str) -> PathBuf {
        self.directory.join(volume).join("points").join(point).join("disk")
    }

    pub fn process(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    pub fn peak_resident_kib(&self) -> u64 {
        peak_resident_kib(self.process()).expect("the mount runs")
    }

    pub fn diagnostics(&self) -> String {
        fs::read_to_string(&self.diagnostics).unwrap_or_default()
    }

    /// Ends the mount as an operator does, with SIGTERM; it must exit with 0.
    #[track_caller]
    pub fn terminate(mut self) {
        program!("kill", "-TERM", self.process().to_string()).succeeds();
        self.ends_well();
    }

    /// Ends the mount by unmounting its directory; it must exit with 0.
    #[track_caller]
    pub fn unmount(mut self) {
        program!("umount", self.directory).succeeds();
        self.ends_well();
    }

    #[track_caller]
    fn ends_well(&mut self) {
        let mut child = self.child.take().expect("running");
        let (status, _) = wait_within(&mut child, MOUNT_LIMIT, "cdp mount");
        let diagnostics = self.diagnostics();
        assert!(!diagnostics.contains("panicked"), "the mount panicked:\n{diagnostics}");
        assert!(status.success(), "the mount ended with {status}:\n{diagnostics}");
    }

    /// Ends the mount with SIGKILL, and clears the dead mount point away.
    #[track_caller]
    pub fn kill(mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().expect("kill the mount");
        child.wait().expect("reap the mount");
        let diagnostics = self.diagnostics();
        assert!(!diagnostics.contains("panicked"), "the mount panicked:\n{diagnostics}");
        detach(&self.directory).succeeds();
    }
}

fn detach(directory: &Path) -> Ran {
    program!("umount", "-l", directory)
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            let _ = detach(&self.directory);
            println!("diagnostics of the mount:\n{}", self.diagnostics());
        }
    }
}

/// A loop device over a file.
pub struct LoopDevice {
    pub device: PathBuf,
}

impl LoopDevice {
    #[track_caller]
    pub fn attach(file: &Path, options: &[&str]) -> Self {
        let mut words: Vec<_> = ["losetup", "--find", "--show"].map(Into::into).into();
        words.extend(options.iter().map(Into::into));
        words.push(file.into());
        let ran = super::command::run_program(&words).succeeds();
        Self { device: PathBuf::from(ran.stdout.trim()) }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let ran = program!("losetup", "--detach", self.device);
        if ran.code != 0 {
            println!("{}", ran.described());
        }
    }
}

/// A mounted file system.
pub struct MountedFileSystem {
    pub directory: PathBuf,
    mounted: bool,
}

impl MountedFileSystem {
    #[track_caller]
    pub fn mount(device: &Path, directory: &Path, options: &str) -> Self {
        fs::create_dir_all(directory).expect("make the mount point");
        program!("mount", "-o", options, device, directory).succeeds();
        Self { directory: directory.to_owned(), mounted: true }
    }

    /// Unmounts; the file system must not be busy.
    #[track_caller]
    pub fn unmount(mut self) {
        program!("umount", self.directory).succeeds();
        self.mounted = false;
    }
}

impl Drop for MountedFileSystem {
    fn drop(&mut self) {
        if self.mounted {
            let ran = detach(&self.directory);
            if ran.code != 0 {
                println!("{}", ran.described());
            }
        }
    }
}
