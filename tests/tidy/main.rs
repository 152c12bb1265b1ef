//! Rules about the source itself. Each is a function that takes text, so that next to the test that applies it stands
//! one that shows it can fail.

mod arrows;
mod docs;
mod packages;
mod places;
mod sources;
mod words;
