//! A store in a temporary directory, together with what it must contain.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::{Oracle, Trace, cdp};

/// A store, its history as the traces tell it, and room for files beside it.
pub struct Scene {
    directory: TempDir,
    pub store: PathBuf,
    pub oracle: Oracle,
}

impl Scene {
    /// Makes a store with these volumes; the first is the default one.
    #[track_caller]
    pub fn new(volumes: &[(&str, u64)]) -> Self {
        let scene = Self::without_store(volumes);
        let ((first, bytes), others) = volumes.split_first().expect("a volume");
        cdp!("create", scene.store, "--size", bytes.to_string(), "--volume", first).succeeds();
        for (name, bytes) in others {
            cdp!("volume", "add", scene.store, name, "--size", bytes.to_string()).succeeds();
        }
        scene
    }

    /// The directory and the oracle only.
    pub fn without_store(volumes: &[(&str, u64)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = directory.path().join("store");
        Self { directory, store, oracle: Oracle::new(volumes) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Replays a trace with `--fill stamp`, asserts what the report must say, and returns it.
    #[track_caller]
    pub fn replay(&mut self, trace: &Trace) -> Value {
        let file = self.path("trace.csv");
        trace.save(&file);
        let report = cdp!("replay", self.store, file, "--fill", "stamp", "--json").succeeds().json();
        let before = self.oracle.newest();
        self.oracle.replay(trace, None);
        if trace.counted() > 0 {
            assert_eq!(report["first_seq"], before + 1, "first_seq of {report}");
            assert_eq!(report["last_seq"], self.oracle.newest(), "last_seq of {report}");
        }
        report
    }

    #[track_caller]
    pub fn points(&self) -> Value {
        cdp!("points", self.store, "--json").succeeds().json()
    }

    /// The newest seq, as `points` says.
    #[track_caller]
    pub fn newest(&self) -> u64 {
        self.points()["newest"]["seq"].as_u64().expect("newest.seq is a number")
    }

    /// Restores a volume at a point and compares it with what the trace says it is at `seq`.
    #[track_caller]
    pub fn assert_restores(&self, point: &str, volume: &str, seq: u64) {
        let target = self.path("compared.img");
        cdp!("restore", self.store, "--at", point, "--to", target, "--volume", volume).succeeds();
        self.oracle
            .image(volume, seq)
            .assert_equals_file(&target, &format!("{point} of {volume} (seq {seq})"));
        std::fs::remove_file(&target).expect("remove the restored image");
    }

    /// Asserts that a well-formed point is refused with exit 4, without a target left behind.
    #[track_caller]
    pub fn assert_unavailable(&self, point: &str, volume: &str) -> super::Ran {
        let target = self.path("refused.img");
        let ran = cdp!("restore", self.store, "--at", point, "--to", target, "--volume", volume).exits(4);
        assert!(!target.exists(), "a refused restore left a target behind:\n{}", ran.described());
        ran
    }

    /// Asserts that a deep check finds nothing.
    #[track_caller]
    pub fn assert_sound(&self) -> Value {
        let report = cdp!("check", self.store, "--deep", "--json").succeeds().json();
        assert_eq!(report["damaged"], serde_json::json!([]), "damage in a sound store");
        report
    }
}
