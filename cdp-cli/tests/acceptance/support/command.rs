//! Runs the `cdp` tool: arguments in, exit code and output out.
//!
//! Every run ends before its deadline, by an exit code and without a panic, or the test fails: this holds whatever
//! the test is about. The peak of resident memory is the kernel's own high-water mark (`VmHWM`), read every few
//! milliseconds while the process lives.

use std::ffi::OsString;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// No command of these tests may take longer; a hang would otherwise stop the whole run.
const DEADLINE: Duration = Duration::from_secs(900);

/// One finished run of a program.
pub struct Ran {
    /// The command line, for messages.
    pub line: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub peak_resident_kib: u64,
}

/// Runs the tool: `cdp!("create", store, "--size", "1M")`; the arguments may be strings and paths.
macro_rules! cdp {
    ($($argument:expr),* $(,)?) => {
        $crate::support::command::run_cdp(&[$(::std::ffi::OsStr::new(&$argument).to_owned()),*])
    };
}
pub(crate) use cdp;

/// Runs another program, which must succeed: `program!("losetup", "-d", device)`.
macro_rules! program {
    ($($argument:expr),* $(,)?) => {
        $crate::support::command::run_program(&[$(::std::ffi::OsStr::new(&$argument).to_owned()),*])
    };
}
pub(crate) use program;

/// A command for the tool that is still to be started.
pub fn cdp_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cdp"));
    command.stdin(Stdio::null());
    command
}

pub fn run_cdp(arguments: &[OsString]) -> Ran {
    let mut command = cdp_command();
    command.args(arguments);
    let ran = run(command, format!("cdp {}", words(arguments)));
    assert!(!ran.stderr.contains("panicked"), "the tool panicked:\n{}", ran.described());
    ran
}

/// Runs a program that the machine must have; its absence fails the test with what to install.
pub fn run_program(arguments: &[OsString]) -> Ran {
    let (name, rest) = arguments.split_first().expect("a program to run");
    let mut command = Command::new(name);
    command.args(rest).stdin(Stdio::null());
    run(command, words(arguments))
}

fn words(arguments: &[OsString]) -> String {
    arguments.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn run(mut command: Command, line: String) -> Ran {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start `{line}`: {error}"));
    let stdout = drain(child.stdout.take().expect("piped"));
    let stderr = drain(child.stderr.take().expect("piped"));
    let (status, peak_resident_kib) = wait_within(&mut child, DEADLINE, &line);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (stdout, stderr) = (text(stdout.join().expect("reader")), text(stderr.join().expect("reader")));
    let code = status.code().unwrap_or_else(|| panic!("`{line}` was ended by a signal: {status}\n{stderr}"));
    Ran { line, code, stdout, stderr, peak_resident_kib }
}

fn drain(mut source: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // An error here is the end of the pipe; the exit code tells the rest.
        let _ = source.read_to_end(&mut bytes);
        bytes
    })
}

/// Waits for the end of a child and returns its status and the peak of its resident memory.
pub fn wait_within(child: &mut Child, limit: Duration, line: &str) -> (std::process::ExitStatus, u64) {
    let started = Instant::now();
    let mut peak = 0;
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait().expect("wait for the child") {
            return (status, peak);
        }
        peak = peak.max(peak_resident_kib(child.id()).unwrap_or(0));
        if started.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            panic!("`{line}` did not end within {limit:?}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// The high-water mark of a living process's resident memory.
pub fn peak_resident_kib(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

impl Ran {
    /// Asserts the exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(self.code == code, "expected exit {code}:\n{}", self.described());
        self
    }

    /// Asserts that the exit code is one of several.
    #[track_caller]
    pub fn exits_with_one_of(self, codes: &[i32]) -> Self {
        assert!(codes.contains(&self.code), "expected exit {codes:?}:\n{}", self.described());
        self
    }

    #[track_caller]
    pub fn succeeds(self) -> Self {
        self.exits(0)
    }

    /// Asserts that the diagnostics contain a text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "stderr does not name `{text}`:\n{}", self.described());
        self
    }

    /// The one JSON document that stdout must be.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("stdout is not one JSON document ({error}):\n{}", self.described())
        })
    }

    pub fn described(&self) -> String {
        format!("$ {}\nexit {}\nstdout: {}\nstderr: {}", self.line, self.code, self.stdout, self.stderr)
    }
}
