//! The API against real servers.

mod support;

mod answers;
mod keys;
mod matrix;
mod messages;
mod monitoring;
mod planting;
