//! The state of every process that `weir up` runs, kept in `stack.json` too.

use std::path::PathBuf;
use std::sync::Mutex;

use crate::stack_file::{Role, Server, StackFile};

/// What runs where.
pub(crate) struct Board {
    data: PathBuf,
    file: Mutex<StackFile>,
}

impl Board {
    pub(crate) fn new(data: PathBuf, file: StackFile) -> Self {
        let board = Self { data, file: Mutex::new(file) };
        board.change(|_| ());
        board
    }

    /// Changes something and writes the file.
    pub(crate) fn change(&self, change: impl FnOnce(&mut StackFile)) {
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut file);
        if let Err(error) = file.write(&self.data) {
            tracing::error!(error = format!("{error:#}"), "what runs where could not be written down");
        }
    }

    /// A copy of everything.
    pub(crate) fn read(&self) -> StackFile {
        self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Notes a process under its name.
    pub(crate) fn put(&self, role: Role) {
        self.change(|file| match file.processes.iter_mut().find(|other| other.name == role.name) {
            Some(other) => *other = role,
            None => file.processes.push(role),
        });
    }

    /// Forgets a process.
    pub(crate) fn remove(&self, name: &str) {
        self.change(|file| file.processes.retain(|role| role.name != name));
    }

    /// Notes the process id of a server that was started again.
    pub(crate) fn server(&self, pick: impl FnOnce(&mut StackFile) -> &mut Server, pid: u32) {
        self.change(|file| pick(file).pid = Some(pid));
    }
}
