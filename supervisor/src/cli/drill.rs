//! `weir drill`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use weir_core::shutdown;
use weir_drill::{DrillOptions, Fault, Progress, Report};

use crate::Ending;
use crate::cli::Output;
use crate::context::Context;
use crate::output::{json, line, remark};

/// Kill, freeze and cut a private fleet under load, and prove that nothing acknowledged was lost
///
/// Starts a Redis, a PostgreSQL, gateways and workers of its own in a temporary folder; nothing else is touched. Faults,
/// messages and MAX's events are drawn from the seed, which is printed. Every answer is entered in a ledger outside of
/// the system; at the end the ledger is compared with the rows, the profiles and the dead letters. Ctrl-C ends the faults
/// and judges what was done until then.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  weir drill\n  weir drill --minutes 5 --seed 7\n  weir drill --faults redis,worker-kill \
                  --kills 300 --html drill.html\n  weir drill --list\n\nExit codes: 0 every promise held · 3 one did not"
)]
pub(crate) struct Drill {
    /// How long faults are injected
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    minutes: f64,
    /// Decides faults, their times and the messages [default: a random one]
    #[arg(long)]
    seed: Option<u64>,
    /// Only these: parts (gateway, worker, redis, postgres, net, disk) or single faults
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    faults: Vec<String>,
    /// Go on until so many processes were killed
    #[arg(long, value_name = "N", default_value_t = 0)]
    kills: usize,
    /// So many faults at most
    #[arg(long, value_name = "N")]
    strikes: Option<usize>,
    /// How long every fault lasts, such as 10m, instead of a random time
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    hold: Option<Duration>,
    /// Seconds that work may take to go on after a fault, and half of what everything may take to drain at the end
    #[arg(long, value_name = "N", default_value_t = 60)]
    patience: u64,
    /// What a 2xx promises: with `memory` Redis syncs once a second, and a kill may lose what it has answered for
    #[arg(long, value_name = "LEVEL", default_value = "disk")]
    durability: Level,
    /// Gateway processes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    gateways: u16,
    /// Worker processes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    workers: u16,
    /// Senders with a connection each
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    senders: u16,
    /// Messages a second, all senders together; 0 for as many as they can
    #[arg(long, value_name = "N", default_value_t = 2000)]
    rate: u32,
    /// Also write the report as a page with a timeline
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Keep logs, ledger and report in this folder, which must not be there yet
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Show the faults and do nothing
    #[arg(long)]
    list: bool,
}

/// Levels of durability that one machine can be drilled at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    Disk,
    Memory,
}

impl Drill {
    pub(crate) async fn run(self, context: &Context) -> Result<Ending> {
        if self.list {
            list(context.global.output);
            return Ok(Ending::Done);
        }
        let folder = Folder::make(self.keep.as_deref())?;
        let options = self.options(folder.path())?;
        let stop = shutdown::on_signals().context("signals cannot be handled")?;
        remark(format!("seed {}; the stack is in {}", options.seed, folder.path().display()));
        let bar = Bar::new();
        let result = weir_drill::run(&options, &stop, |progress| bar.show(progress)).await;
        bar.end();
        let report = match result {
            Ok(report) => report,
            Err(error) => return Err(error.context(folder.keep_for_a_look())),
        };
        if let Some(file) = &self.html {
            fs::write(file, report.html()).with_context(|| format!("{} cannot be written", file.display()))?;
        }
        folder.put(&report)?;
        match context.global.output {
            Output::Json => json(&report),
            Output::Table => line(&report),
        }
        if report.green {
            return Ok(Ending::Done);
        }
        remark(folder.keep_for_a_look());
        Ok(Ending::Negative)
    }

    fn options(&self, folder: &Path) -> Result<DrillOptions> {
        if !(self.minutes.is_finite() && (0.0..=7.0 * 24.0 * 60.0).contains(&self.minutes)) {
            bail!("--minutes {}: is not between 0 and 10080", self.minutes);
        }
        let faults = Fault::chosen(&self.faults).map_err(anyhow::Error::msg)?;
        Ok(DrillOptions {
            binary: std::env::current_exe().context("the path of this program is not known")?,
            folder: folder.to_owned(),
            length: Duration::from_secs_f64(self.minutes * 60.0),
            kills: self.kills,
            seed: self.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
            faults,
            everysec: self.durability == Level::Memory,
            strikes: self.strikes,
            hold: self.hold,
            patience: Duration::from_secs(self.patience),
            gateways: self.gateways.into(),
            workers: self.workers.into(),
            senders: self.senders,
            rate: (self.rate > 0).then_some(f64::from(self.rate)),
            env: planted(),
        })
    }
}

/// The planted fault that this process was told of is one of the roles'.
fn planted() -> BTreeMap<String, String> {
    let name = std::env::var("WEIR_PLANTED").ok().filter(|_| weir_core::planted::PRESENT);
    name.map(|name| ("WEIR_PLANTED".to_owned(), name)).into_iter().collect()
}

fn list(output: Output) {
    match output {
        Output::Json => {
            let faults = Fault::ALL.iter().map(|fault| {
                serde_json::json!({
                    "fault": fault,
                    "part": fault.part().name(),
                    "kills": fault.kills(),
                    "about": fault.about(),
                })
            });
            json(&serde_json::Value::from_iter(faults));
        }
        Output::Table => {
            for fault in Fault::ALL {
                line(format_args!("{:<24} {}", fault.name(), fault.about()));
            }
        }
    }
}

/// Where the drill lives: a folder that goes away, or one that was asked for.
struct Folder {
    temporary: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Folder {
    fn make(keep: Option<&Path>) -> Result<Self> {
        match keep {
            Some(path) => {
                fs::create_dir(path).with_context(|| {
                    format!("{} cannot be made; name a folder that is not there yet", path.display())
                })?;
                Ok(Self { temporary: None, path: path.canonicalize()? })
            }
            None => {
                let folder = tempfile::Builder::new().prefix("weir-drill-").tempdir().context("no temporary folder")?;
                open_to_servers(folder.path())?;
                let path = folder.path().to_owned();
                Ok(Self { temporary: Some(folder), path })
            }
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the report beside logs and ledger.
    fn put(&self, report: &Report) -> Result<()> {
        fs::write(self.path.join("report.html"), report.html()).context("the report cannot be written")?;
        fs::write(self.path.join("report.json"), serde_json::to_vec_pretty(report)?)
            .context("the report cannot be written")
    }

    /// After something went wrong the folder stays.
    fn keep_for_a_look(self) -> String {
        if let Some(folder) = self.temporary {
            let _path = folder.keep();
        }
        format!("logs, ledger and report are in {}", self.path.display())
    }
}

/// PostgreSQL may run under an account of its own, which has to pass through.
fn open_to_servers(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o711)).context("the temporary folder cannot be used")
}

/// What is being done, for people who wait.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new(1000);
        let style = ProgressStyle::with_template("{bar:30} {elapsed_precise}  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    fn show(&self, progress: &Progress) {
        self.0.set_position((progress.share * 1000.0) as u64);
        self.0.set_message(format!(
            "{} · {} acknowledged · {} faults · {} kills",
            progress.phase, progress.acknowledged, progress.faults, progress.kills
        ));
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}
