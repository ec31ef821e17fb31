//! A drill: real processes under load, faults on purpose, and a judge who keeps books outside of the system.
//!
//! A run starts a private stack (`stack`) with proxies on all ways between the parts. Senders (`load`) post messages and
//! MAX's events (`max`) as providers do and enter every answer into the `ledger`. Meanwhile two injectors (`inject`) strike, each by a
//! `plan` drawn from the seed. Then everything is healed, what is in flight has to drain in bounded time, and the
//! `judge` compares the ledger with the rows and the dead letters. The `report` says what was found, in three forms.

mod fault;
mod plan;

mod roles;
mod stack;

mod ledger;
mod load;
mod max;
mod post;

mod inject;

mod judge;
mod timeline;

mod report;
mod run;

pub use fault::{Fault, Part};
pub use judge::Verdict;
pub use ledger::Answers;
pub use report::{FaultSummary, Recovery, Report};
pub use run::{DrillOptions, Progress, run};
pub use timeline::{Event, Slice};
