//! The file in which a verification keeps how far it is.

use crate::exit::{Failure, Outcome};
use cdp_core::{Error, VerifyCursor};
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    path::Path,
};

/// Most bytes of such a file.
const BYTES_MAX: u64 = 16 << 20;

/// A file that is there whole, as it was or as it is, whenever the machine stops.
pub struct CursorFile<'a>(pub &'a Path);

impl CursorFile<'_> {
    /// What an earlier run has kept; nothing without the file.
    ///
    /// # Errors
    /// `Failed` when it cannot be read or is none.
    pub fn load(&self) -> Outcome<Option<VerifyCursor>> {
        let failed = |error: io::Error| Failure::io("read", self.0, &error);
        let file = match File::open(self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        let mut text = String::new();
        file.take(BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        let cursor = VerifyCursor::from_text(&text);
        cursor.map(Some).map_err(|error| {
            Failure::new(format!("{}: {error}; name another file, or remove this one", self.0.display()))
        })
    }

    /// Keeps a cursor, durably.
    ///
    /// # Errors
    /// `Io`.
    pub fn keep(&self, cursor: &VerifyCursor) -> cdp_core::Result<()> {
        self.replace(cursor).map_err(|error| Error::io("keep", self.0.display().to_string(), error))
    }

    fn replace(&self, cursor: &VerifyCursor) -> io::Result<()> {
        let directory = self.directory();
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(cursor.to_text().as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(self.0)?;
        File::open(directory)?.sync_all()
    }

    /// Removes it: everything was compared.
    ///
    /// # Errors
    /// `Failed`.
    pub fn remove(&self) -> Outcome {
        match fs::remove_file(self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Failure::io("remove", self.0, &error)),
            _ => Ok(()),
        }
    }

    fn directory(&self) -> &Path {
        self.0.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }
}
