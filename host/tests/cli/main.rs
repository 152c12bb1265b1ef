//! The binary as its users run it: what it prints, what it leaves behind, how it ends.

#![allow(clippy::unwrap_used)]

mod check;
mod dev;
mod knowledge;
mod new;
mod operate;
mod run;
mod trust;
