//! Everything that can be seen from outside, over real sockets; one program, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod cancel;
mod confirmation;
mod connection;
mod embedding;
mod gateway_faults;
mod interactions;
mod limits;
mod operating;
mod plugins;
mod progress;
mod python_client;
mod resume;
mod schemas;
mod sessions;
mod shutdown;
mod turns;
mod who_may_connect;
