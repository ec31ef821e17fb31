//! The data of one PostgreSQL: its creation, its configuration, its commands.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use super::installation::Installation;
use super::settings::{self, Machine};
use super::{Account, NAME, home};
use crate::log::RunLog;
use crate::{Process, Result, StackError, private, tied};

/// Text sorts by bytes (`C`), which makes its indexes fast; this lets letters of all alphabets know their upper and lower
/// case. Not every system has it.
const LC_CTYPE: &str = "C.UTF-8";

/// The data of one PostgreSQL. It holds a password and therefore has no `Debug`.
pub(super) struct Cluster {
    home: PathBuf,
    data: PathBuf,
    account: Option<Account>,
    installation: Installation,
    password: String,
    settings: Vec<(String, String)>,
}

impl Cluster {
    /// Finds the data that belongs to `dir`, or creates it.
    pub(super) async fn open(dir: &Path, settings: Vec<(String, String)>) -> Result<Cluster> {
        let account = Account::to_switch_to()?;
        let home = home::choose(dir, account.as_ref())?;
        let data = home.join("data");
        let version = fs::read_to_string(data.join("PG_VERSION")).ok();
        let cluster = Cluster {
            installation: Installation::find(version.as_deref().map(str::trim))?,
            password: private::password(&home.join("postgres.password"))?,
            home,
            data,
            account,
            settings,
        };
        if version.is_none() {
            cluster.create().await?;
        }
        Ok(cluster)
    }

    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        self.data.join("postmaster.pid")
    }

    /// Writes postgresql.conf. `ALTER SYSTEM` keeps its own file, which wins.
    pub(super) async fn configure(&self, port: u16) -> Result<()> {
        let compression = self.best_wal_compression().await?;
        let own = [("listen_addresses", "127.0.0.1".to_owned()), ("port", port.to_string())];
        let scaled = settings::scaled(Machine::here(&self.home), compression);
        let lines: String = own
            .iter()
            .chain(&scaled)
            .map(|(name, value)| settings::line(name, value))
            .chain(self.settings.iter().map(|(name, value)| settings::line(name, value)))
            .collect();
        let path = self.data.join("postgresql.conf");
        private::write(&path, &format!("# Written anew at every start; use ALTER SYSTEM instead.\n\n{lines}"))?;
        self.hand_over(&path)
    }

    /// The command that runs the server.
    pub(super) fn server_command(&self, log: &RunLog) -> Result<Command> {
        let mut command = self.command(&self.installation.postgres(), "INT", log)?;
        command.arg("-D").arg(&self.data);
        Ok(command)
    }

    /// A creation that failed midway leaves only `data.new`, which the next one removes.
    async fn create(&self) -> Result<()> {
        let draft = self.home.join("data.new");
        if draft.exists() {
            fs::remove_dir_all(&draft).map_err(StackError::at("remove the unfinished", &draft))?;
        }
        fs::create_dir(&draft).map_err(StackError::at("create the folder", &draft))?;
        fs::set_permissions(&draft, Permissions::from_mode(0o700))
            .map_err(StackError::at("set the permissions of", &draft))?;
        self.hand_over(&draft)?;
        self.initdb(&draft).await?;
        self.create_database(&draft).await?;
        fs::rename(&draft, &self.data).map_err(StackError::at("move into place", &draft))
    }

    async fn initdb(&self, draft: &Path) -> Result<()> {
        // The server's account cannot read our own copy.
        let pwfile = self.home.join("initdb.password");
        private::write(&pwfile, &self.password)?;
        self.hand_over(&pwfile)?;
        let result = match self.initdb_with(draft, &pwfile, LC_CTYPE).await {
            Err(StackError::Ended { .. }) => self.initdb_with(draft, &pwfile, "C").await,
            done => done,
        };
        fs::remove_file(&pwfile).map_err(StackError::at("remove", &pwfile))?;
        result
    }

    async fn initdb_with(&self, draft: &Path, pwfile: &Path, lc_ctype: &str) -> Result<()> {
        let log = RunLog::open(&self.home.join("initdb.log"))?;
        let mut command = self.command(&self.installation.initdb(), "KILL", &log)?;
        command
            .arg("--pgdata")
            .arg(draft)
            .arg("--pwfile")
            .arg(pwfile)
            .args(["--username", NAME])
            .args(["--auth", "scram-sha-256"])
            .args(["--encoding", "UTF8"])
            .args(["--locale", "C", "--lc-ctype", lc_ctype]);
        run(command, "initdb", &log).await
    }

    async fn create_database(&self, draft: &Path) -> Result<()> {
        let log = RunLog::open(&self.home.join("initdb.log"))?;
        let mut command = self.command(&self.installation.postgres(), "KILL", &log)?;
        command.arg("--single").arg("-D").arg(draft).arg("postgres").stdin(feed(&format!("CREATE DATABASE {NAME}\n"))?);
        run(command, "postgres --single", &log).await?;
        // It reports a failed statement in its log only.
        if log.quote().contains("ERROR:") {
            let status = ExitStatus::default();
            return Err(ended("postgres --single", status, &log));
        }
        Ok(())
    }

    /// `lz4` where this PostgreSQL was built with it.
    async fn best_wal_compression(&self) -> Result<&'static str> {
        let log = RunLog::open(&self.home.join("initdb.log"))?;
        let mut command = self.command(&self.installation.postgres(), "KILL", &log)?;
        command
            .args(["-C", "wal_compression", "-c", "wal_compression=lz4"])
            // What the last start configured could have a mistake in it.
            .args(["-c", "config_file=/dev/null", "-D"])
            .arg(&self.data);
        let status = Process::spawn(command)?.wait().await;
        Ok(if status.success() { "lz4" } else { "on" })
    }

    fn command(&self, program: &Path, death_signal: &'static str, log: &RunLog) -> Result<Command> {
        let mut command = tied::server_command(program, death_signal, self.account.as_ref())?;
        command.current_dir(&self.home).stdout(log.stdio()?).stderr(log.stdio()?);
        Ok(command)
    }

    fn hand_over(&self, path: &Path) -> Result<()> {
        match &self.account {
            Some(account) => account.own(path),
            None => Ok(()),
        }
    }
}

async fn run(command: Command, name: &'static str, log: &RunLog) -> Result<()> {
    let status = Process::spawn(command)?.wait().await;
    if status.success() { Ok(()) } else { Err(ended(name, status, log)) }
}

fn ended(server: &'static str, status: ExitStatus, log: &RunLog) -> StackError {
    StackError::Ended { server, status, log: log.path().to_owned(), tail: log.quote() }
}

/// A stdin that holds this short text.
fn feed(text: &str) -> Result<io::PipeReader> {
    let pipe = || {
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(text.as_bytes())?;
        Ok(reader)
    };
    pipe().map_err(|source| StackError::Spawn { program: "postgres --single".into(), source })
}
