//! Each edge on its own.
