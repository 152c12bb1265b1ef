//! Jackfield: a local agent server that is extended by dropping plugins into a folder.

pub mod auth;
pub mod clock;
pub mod config;
pub mod http;
pub mod ids;
pub mod knowledge;
pub mod model;
pub mod protocol;
pub mod run_file;
pub mod storage;
