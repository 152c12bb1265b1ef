//! Everything that can be seen from outside, over real sockets; one program, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod admin;
mod agents;
mod attachments;
mod auth;
mod cancel;
mod confirmation;
mod conformance;
mod connection;
mod connectors;
mod embedding;
mod gateway_faults;
mod interactions;
mod interleavings;
mod knowledge;
mod late_storage;
mod ledger;
mod limits;
mod one_time_codes;
mod openapi;
mod operating;
mod plugins;
mod progress;
mod python_client;
mod regressions;
mod resume;
mod schemas;
mod scoping;
mod sessions;
mod shutdown;
mod titles;
mod turns;
mod who_may_connect;
mod widget;
