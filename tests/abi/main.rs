//! Real plugin files, really loaded: what a host does with good ones, with bad ones, with ones that misbehave and
//! with ones from another time.

#![allow(clippy::unwrap_used)]

mod calls;
#[cfg(target_os = "linux")]
mod confined;
mod containment;
#[cfg(unix)]
mod crashes;
mod faults;
mod harness;
#[cfg(unix)]
mod isolated;
mod loading;
mod reload;
mod services;
mod shutdown;
mod versions;
