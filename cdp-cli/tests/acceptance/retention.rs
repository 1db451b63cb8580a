//! Retention: what is left is exactly what the policy says, what is left is right, and it takes no more space than
//! it must. What a mount and a full disk add is in `machine/retention.rs`.

mod bounds;
mod killed;
mod long;
mod plans;
mod timeline;
