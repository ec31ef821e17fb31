//! People who work for a university, and from where their names come.

mod backfill;
mod name;
mod rows;

pub use backfill::{Backfill, BackfillKind, BackfillStep, UndoStep};
pub use name::FullName;
pub use rows::{Employee, EmployeeFilter, EmployeePatch, NewEmployee};
