//! Retention: what stays for how long.

use crate::{
    arguments::sized, failure::Failure, guard::guard, handle::get, status::cdp_status, store::cdp_store,
    types::cdp_point,
};
use cdp_core::{retention::Policy, store::RetentionReport};
use std::{
    ffi::{c_char, c_void},
    mem::size_of,
};

/// A policy as TOML.
pub const CDP_POLICY_TOML: u32 = 0;
/// A policy as JSON on one line.
pub const CDP_POLICY_JSON: u32 = 1;

/// What a run of retention would do, or did.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_retention_report {
    /// sizeof(cdp_retention_report).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Points that go.
    pub drop_points: u64,
    /// Points that stay.
    pub keep_points: u64,
    /// Bookmarks that go.
    pub expiring_bookmarks: u64,
    /// Bytes that are freed: by a preview as far as the index tells, by a run as the storage says.
    pub bytes_freed: u64,
    /// From here on every state stays.
    pub horizon: cdp_point,
}
sized!(cdp_retention_report, 56);

impl From<&RetentionReport> for cdp_retention_report {
    fn from(report: &RetentionReport) -> Self {
        Self {
            struct_size: 0,
            flags: 0,
            drop_points: report.drop_points,
            keep_points: report.keep_points,
            expiring_bookmarks: report.expiring_bookmarks.len() as u64,
            bytes_freed: report.bytes_freed,
            horizon: report.horizon.into(),
        }
    }
}

/// Records a policy, as JSON when the text begins with a brace and as TOML otherwise (docs/retention.md); durable when this returns. Nothing is
/// dropped by it. CDP_ERR_INVALID_ARGUMENT with the place and the reason when the text is no policy. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_retention_set(store: *mut cdp_store, text: *const c_char) -> cdp_status {
    guard(|caller| {
        let held = get(store)?;
        Ok(held.store.set_policy(&Policy::from_text(caller.text("text", text)?)?)?)
    })
}

/// The policy in force in its canonical form, without a NUL; format is CDP_POLICY_*. len_out is the size that is needed, also with
/// CDP_ERR_BUFFER_TOO_SMALL, when the buffer is untouched; buf may be NULL with len 0. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_retention_get(
    store: *const cdp_store,
    format: u32,
    buf: *mut c_char,
    len: usize,
    len_out: *mut usize,
) -> cdp_status {
    guard(|caller| {
        let policy = get(store)?.store.policy()?;
        let text = match format {
            CDP_POLICY_TOML => policy.to_toml(),
            CDP_POLICY_JSON => policy.to_json(),
            other => return Err(Failure::argument(format!("{other} is not a format of policies"))),
        };
        caller.fill(text.as_bytes(), buf.cast::<c_void>(), len, len_out)
    })
}

/// What cdp_retention_run would do at now_ns (0: the clock of the store), for the recorded policy or for another one in text, which may be
/// NULL. Changes nothing. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_retention_preview(
    store: *const cdp_store,
    now_ns: u64,
    text: *const c_char,
    report_out: *mut cdp_retention_report,
) -> cdp_status {
    guard(|caller| {
        let held = get(store)?;
        let out = caller.sized_out(report_out)?;
        let policy = caller.text_optional("text", text)?.map(Policy::from_text).transpose()?;
        out.put(&(&held.store.preview_retention(held.time_or_now(now_ns), policy.as_ref())?).into());
        Ok(())
    })
}

/// Brings the timeline to what the recorded policy says at now_ns (0: the clock of the store), and frees the space. What is dropped is refused
/// from the moment at which the plan is durable; snapshots that are open keep their points. report_out may be NULL. What a failure left
/// undone is done by a later run. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_retention_run(
    store: *mut cdp_store,
    now_ns: u64,
    report_out: *mut cdp_retention_report,
) -> cdp_status {
    guard(|caller| {
        let held = get(store)?;
        let out = caller.sized_out_optional(report_out)?;
        let report = held.store.run_retention(held.time_or_now(now_ns))?;
        if let Some(out) = out {
            out.put(&(&report).into());
        }
        Ok(())
    })
}
