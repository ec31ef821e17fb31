//! The figures that one machine can give of what Weir promises under faults, as a page: runs the drills, the tests that
//! take a count, and the measurements of overload and slow clients, one after the other.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::report::{Report, say};
use crate::{overload, slow};

/// What to run, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Scoreboard {
    /// Processes that the long drill kills at least
    #[arg(long, default_value_t = 300)]
    kills: usize,
    /// Minutes of the long drill at least
    #[arg(long, default_value_t = 10)]
    minutes: u32,
    /// Seed of the drills
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// How long PostgreSQL, and then all workers, are away
    #[arg(long, default_value = "10m")]
    outage: String,
    /// Primaries of Redis that are killed
    #[arg(long, default_value_t = 50)]
    failovers: usize,
    /// Rolling restarts
    #[arg(long, default_value_t = 50)]
    restarts: usize,
    /// Answers that are lost
    #[arg(long, default_value_t = 10_000)]
    ambiguous: usize,
    /// Take the drills' reports of the last time, where they are in target/drill
    #[arg(long)]
    reuse: bool,
    /// The page
    #[arg(long, default_value = "docs/SCOREBOARD.md")]
    page: PathBuf,
    /// The long drill's report
    #[arg(long, default_value = "docs/drill.html")]
    html: PathBuf,
}

/// One figure.
struct Row {
    number: &'static str,
    figure: &'static str,
    target: &'static str,
    found: String,
    how: String,
}

impl Scoreboard {
    pub(crate) async fn run(self) -> Result<()> {
        let mut rows = Vec::new();
        say("three drills side by side; each has servers of its own");
        let (long, postgres, workers) =
            tokio::try_join!(self.long_drill(), self.outage_drill("postgres-kill"), self.outage_drill("workers-down"))?;
        self.rows_of_long_drill(&mut rows, &long);
        self.rows_of_outages(&mut rows, &postgres, &workers);
        self.contrast(&mut rows).await?;
        let failed = self.tests(&mut rows).await?;
        self.measurements(&mut rows).await?;
        rows.sort_by_key(|row| row.number.trim_matches(char::is_alphabetic).parse::<u32>().unwrap_or(u32::MAX));
        let page = self.page(&rows, &long);
        std::fs::write(&self.page, &page).with_context(|| format!("{} cannot be written", self.page.display()))?;
        say(page);
        // The page is written all the same: the other figures took most of an hour.
        ensure!(failed == 0, "{failed} figures could not be shown; the page says which");
        Ok(())
    }

    async fn long_drill(&self) -> Result<Value> {
        let (kills, minutes) = (self.kills.to_string(), self.minutes.to_string());
        let html = self.html.display().to_string();
        self.green("long", &["--kills", &kills, "--minutes", &minutes, "--html", &html]).await
    }

    /// One long fault under a load that leaves more than 100,000 messages behind.
    async fn outage_drill(&self, fault: &str) -> Result<Value> {
        let always = ["--strikes", "1", "--rate", "250", "--minutes", "0.5", "--patience", "600"];
        self.green(fault, &[&always[..], &["--faults", fault, "--hold", &self.outage]].concat()).await
    }

    /// Runs a drill to its end; a red one is an error.
    async fn green(&self, name: &str, arguments: &[&str]) -> Result<Value> {
        let report = self.drill(name, arguments).await?;
        ensure!(report["green"] == true, "the drill {name} is red: {}", report["findings"]);
        Ok(report)
    }

    /// Runs a drill and keeps its report; one that was kept is taken when it may be.
    async fn drill(&self, name: &str, arguments: &[&str]) -> Result<Value> {
        let kept = Path::new("target/drill").join(format!("{name}.json"));
        if self.reuse && kept.exists() {
            say(format_args!("{} is taken", kept.display()));
            return Ok(serde_json::from_slice(&std::fs::read(kept)?)?);
        }
        let seed = self.seed.to_string();
        let mut command = Command::new(weir()?);
        command.args(["drill", "--output", "json", "--seed", &seed]).args(arguments);
        say(format_args!("weir drill --seed {seed} {}", arguments.join(" ")));
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.context("weir cannot be run")?;
        let report = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the drill {name} gave no report: {}", String::from_utf8_lossy(&output.stderr)))?;
        std::fs::create_dir_all("target/drill")?;
        std::fs::write(kept, &output.stdout)?;
        Ok(report)
    }

    fn rows_of_long_drill(&self, rows: &mut Vec<Row>, report: &Value) {
        let verdict = &report["verdict"];
        let how = format!("`weir drill --kills {} --seed {}`", self.kills, self.seed);
        let mut row =
            |number, figure, target, found| rows.push(Row { number, figure, target, found, how: how.clone() });
        let bound = report["loss_per_kill_at_most"].as_f64().unwrap_or(1.0) * 100.0;
        row(
            "1",
            "acknowledged messages lost",
            "0 of 1,000,000 over 300 kills",
            format!(
                "{} of {} over {} kills (at most {bound:.1} % per kill at 95 %)",
                verdict["lost"], verdict["acknowledged"], report["kills"]
            ),
        );
        row("2", "messages there twice", "0", verdict["doubled"].to_string());
        row("3", "2xx that were not true", "0", verdict["wrong_2xx"].to_string());
        row(
            "7",
            "recovery, p95, by part struck",
            "gateway 1 s, Redis 2 s, PostgreSQL 5 s, worker lease + 2 s",
            recoveries(report),
        );
        row(
            "9",
            "poison that is a dead letter with its cause",
            "all; no good message is dead",
            format!(
                "{} dead letters, {} of them good messages; {} of poison stored",
                verdict["dead"], verdict["wrongly_dead"], verdict["poison_stored"]
            ),
        );
    }

    fn rows_of_outages(&self, rows: &mut Vec<Row>, postgres: &Value, workers: &Value) {
        let mut row = |number, figure, target, report: &Value| {
            let verdict = &report["verdict"];
            rows.push(Row {
                number,
                figure,
                target,
                found: format!(
                    "{} good ones dead, {} lost of {}; drained in {:.0} s",
                    verdict["wrongly_dead"],
                    verdict["lost"],
                    verdict["acknowledged"],
                    verdict["drained_seconds"].as_f64().unwrap_or(f64::NAN)
                ),
                how: format!("`weir drill --strikes 1 --hold {}`", self.outage),
            });
        };
        row("8", "dead letters of a long outage of PostgreSQL", "0 with a backlog of 100,000", postgres);
        row("8w", "the same with all workers away", "0", workers);
    }

    /// What a Redis that syncs once a second would lose to a kill.
    async fn contrast(&self, rows: &mut Vec<Row>) -> Result<()> {
        let arguments = ["--durability", "memory", "--faults", "redis-kill", "--kills", "30", "--minutes", "0.5"];
        // Red is what is expected here.
        let report = self.drill("everysec", &arguments).await?;
        rows.push(Row {
            number: "5",
            figure: "loss with `everysec`",
            target: "a number",
            found: format!(
                "{} of {} over {} SIGKILLs of Redis",
                report["verdict"]["lost"], report["verdict"]["acknowledged"], report["kills"]
            ),
            how: "`weir drill --durability memory --faults redis-kill`".into(),
        });
        Ok(())
    }

    /// Gives how many failed.
    async fn tests(&self, rows: &mut Vec<Row>) -> Result<usize> {
        let mut failed = 0;
        let (ambiguous, failovers, restarts) =
            (self.ambiguous.to_string(), self.failovers.to_string(), self.restarts.to_string());
        let tests = [
            (
                "4",
                "lost answers whose retry names the same message",
                "all of 10,000",
                "weir-gateway",
                "network::an_answer_that_was_lost",
                Some(("WEIR_TEST_AMBIGUOUS", &ambiguous)),
            ),
            (
                "6",
                "acknowledged messages lost in failovers, level `replica`",
                "0 of 50 failovers",
                "weir",
                "failover::a_primary_killed_under_load",
                Some(("WEIR_TEST_FAILOVERS", &failovers)),
            ),
            (
                "14",
                "failed requests in rolling restarts",
                "0 of 50 restarts",
                "weir",
                "restart::rolling_restarts_under_load",
                Some(("WEIR_TEST_RESTARTS", &restarts)),
            ),
            ("13", "abuse of HTTP/2", "the connection ends, others are served", "weir-gateway", "floods::", None),
            (
                "17",
                "smuggling, alone and behind nginx and HAProxy",
                "read as one request or refused",
                "weir-gateway",
                "smuggling::",
                None,
            ),
            ("15", "contract fuzz", "no 5xx, no violation of the schema", "weir", "schemathesis::", None),
            ("16", "access matrix", "every cell as specified", "weir-api", "matrix::", None),
            ("18", "canaries in any output", "0", "weir", "canaries::", None),
            (
                "20",
                "full disk, damaged log",
                "as documented, nothing acknowledged lost",
                "weir-core",
                "storage::",
                None,
            ),
            ("20d", "full disk under load", "nothing acknowledged lost", "weir-gateway", "disk::", None),
            ("19", "fault scenarios with a named test or drill fault", "50 of 56", "weir", "faults::", None),
        ];
        for (number, figure, target, package, filter, count) in tests {
            let found = match (test(package, filter, count).await, number, count) {
                (Ok(_), "19", _) => covered()?,
                (Ok(_), _, Some((_, count))) => format!("held in {count} of {count}"),
                (Ok(passed), _, None) => format!("{passed} tests passed"),
                (Err(error), ..) => {
                    say(format_args!("{error:#}"));
                    failed += 1;
                    "**failed**".to_owned()
                }
            };
            let env = count.map(|(name, count)| format!("{name}={count} ")).unwrap_or_default();
            rows.push(Row { number, figure, target, found, how: format!("`{env}cargo test -p {package} {filter}`") });
        }
        Ok(failed)
    }

    async fn measurements(&self, rows: &mut Vec<Row>) -> Result<()> {
        let mut figures = Report::default();
        slow::measure(&mut figures, 7, 2100).await?;
        rows.push(Row {
            number: "12",
            figure: "good clients beside 2,000 slow ones",
            target: "0 errors, p99 at most 2x",
            found: format!(
                "{} errors, p99 {}x; beside slowhttptest, which takes both cores, {}x of what it is with the same aimed \
                 at another gateway",
                figures.value("errors of good clients")?,
                figures.value("p99 beside slow ones / alone")?,
                figures.value("p99 with slowhttptest here / elsewhere")?
            ),
            how: "`weir-bench slow`".into(),
        });
        overload::measure(&mut figures, 10).await?;
        let mut row = |number, figure, target, name: &str| -> Result<()> {
            let of = |times: u32| figures.value(&format!("{name}, {times}x the peak"));
            let found = format!("{} at 2x, {} at 5x", of(2)?, of(5)?);
            rows.push(Row { number, figure, target, found, how: "`weir-bench overload`".into() });
            Ok(())
        };
        row("10", "accepted of the peak when more is offered", "0.9", "accepted / peak")?;
        row(
            "10l",
            "p99 of what is accepted, against a quarter of the peak",
            "3",
            "p99 of accepted batches / at a quarter",
        )?;
        row(
            "11",
            "memory of the gateway, second half of it against the first",
            "flat",
            "gateway memory, second half / first",
        )
    }

    fn page(&self, rows: &[Row], long: &Value) -> String {
        let text = |name: &str| long[name].as_str().unwrap_or("-").to_owned();
        let mut page = String::from("# Scoreboard\n\n");
        let _ = writeln!(
            page,
            "Written by `make drill`; figures of one machine of two cores, which the load shares. Commit {}, \
             {}, seed {}.\nThe long drill's report with its timeline: [drill.html](drill.html).\n",
            text("commit"),
            text("started"),
            self.seed
        );
        page.push_str("| # | Figure | Target | Found | How |\n|---|---|---|---|---|\n");
        for row in rows {
            let number = row.number.trim_matches(char::is_alphabetic);
            let _ = writeln!(page, "| {number} | {} | {} | {} | {} |", row.figure, row.target, row.found, row.how);
        }
        page.push_str("\n## The long drill\n\n| fault | times | recovery p50 / p95 / max (s) |\n|---|---|---|\n");
        for fault in long["faults"].as_array().into_iter().flatten() {
            let name = fault["fault"].as_str().unwrap_or_default();
            let of = |what: &str| fault["recovery"][what].as_f64().map_or("-".to_owned(), |s| format!("{s:.2}"));
            let _ = writeln!(page, "| {name} | {} | {} / {} / {} |", fault["times"], of("p50"), of("p95"), of("max"));
        }
        page
    }
}

/// The worst p95 of the faults of each part.
fn recoveries(report: &Value) -> String {
    let parts = ["gateway", "redis", "postgres", "worker", "net"];
    let worst = |part: &str| {
        let faults = report["faults"].as_array().into_iter().flatten();
        let of_part = faults.filter(|fault| fault["fault"].as_str().is_some_and(|name| name.starts_with(part)));
        of_part.filter_map(|fault| fault["recovery"]["p95"].as_f64()).fold(0.0, f64::max)
    };
    parts.map(|part| format!("{part} {:.2} s", worst(part))).join(", ")
}

/// How many of the rows of docs/FAULTS.md name something that shows them.
fn covered() -> Result<String> {
    let page = std::fs::read_to_string("docs/FAULTS.md").context("docs/FAULTS.md cannot be read")?;
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #")).collect();
    let shown = rows.iter().filter(|line| !line.contains("does not apply")).count();
    Ok(format!("{shown} of {}", rows.len()))
}

/// Runs the tests that a filter names; gives how many passed.
async fn test(package: &str, filter: &str, count: Option<(&str, &String)>) -> Result<usize> {
    say(format_args!("cargo test --package {package} --test it {filter}"));
    let mut command = Command::new("cargo");
    command.args(["test", "--locked", "--package", package, "--test", "it", filter]).envs(count);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.context("cargo cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = text.split("test result: ok. ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    match passed {
        Some(passed) if output.status.success() && passed > 0 => Ok(passed),
        _ => bail!("{package} {filter}: {text}"),
    }
}

/// The binary beside this one.
fn weir() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let weir = here.parent().unwrap_or(Path::new(".")).join("weir");
    ensure!(weir.exists(), "{} is not there; build it first: cargo build --release --package weir", weir.display());
    Ok(weir)
}
