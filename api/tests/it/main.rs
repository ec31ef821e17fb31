//! The API against real servers.

mod support;

mod answers;
mod employees;
mod grpc;
mod keys;
mod matrix;
mod messages;
mod planting;
mod schemathesis;
mod swagger;
mod profiles;
