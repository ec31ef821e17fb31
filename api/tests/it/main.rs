//! The API against real servers.

mod support;

mod answers;
mod employees;
mod grpc;
mod keys;
mod limits;
mod matrix;
mod messages;
mod monitoring;
mod planting;
mod profiles;
mod swagger;
