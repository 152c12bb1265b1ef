//! Real plugin files, really loaded: what a host does with good ones, with bad ones, with ones that misbehave and
//! with ones from another time.

#![allow(clippy::unwrap_used)]

mod calls;
mod containment;
mod faults;
mod harness;
mod loading;
mod reload;
mod services;
mod shutdown;
mod versions;
