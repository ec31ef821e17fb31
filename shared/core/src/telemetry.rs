//! Logs and metrics of one process.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal as _;
use std::panic::{self, PanicHookInfo};
use std::str::FromStr;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{Reader, Setting, from_str};
use crate::log;
use crate::shutdown::Shutdown;

/// How a process logs. Logs go to standard error, and never keep anybody waiting: see [`log`].
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// `json`, `pretty`, or `auto`: pretty on a terminal. Default `auto`.
    pub format: LogFormat,
    /// Filter in the form of `RUST_LOG`. Default `info`.
    pub filter: String,
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, else JSON.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "pretty" => Ok(Self::Pretty),
            _ => Err("is none of auto, json, pretty".into()),
        }
    }
}

impl Setting for LogFormat {
    fn read(text: &str) -> Result<Self, String> {
        from_str(text)
    }
}

/// Reads a filter; `None` when it is none. The library counts positions without the blanks around a directive and cuts the
/// text with them, which misreads it, and panics within a character of several bytes: names in filters are ASCII.
fn parse(filter: &str) -> Option<EnvFilter> {
    let bare = filter.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    filter.is_ascii().then(|| EnvFilter::try_new(bare).ok()).flatten()
}

impl LogConfig {
    /// What is logged unless something else is asked for.
    pub const DEFAULT_FILTER: &'static str = "info";

    /// Reads the settings `log.*`.
    pub fn read(reader: &mut Reader) -> Self {
        let filter = reader.get("log.filter", &["WEIR_LOG", "RUST_LOG"], Self::DEFAULT_FILTER.to_owned());
        if parse(&filter).is_none() {
            reader.mistake("log.filter: is no filter such as info or weir_worker=debug,info");
        }
        Self { format: reader.get("log.format", &[], LogFormat::Auto), filter }
    }

    /// Starts logging, panics among the rest. Only the first call in a process has an effect.
    pub fn start(&self) {
        let filter = parse(&self.filter).unwrap_or_else(|| EnvFilter::new(Self::DEFAULT_FILTER));
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log::to_stderr);
        let terminal = std::io::stderr().is_terminal();
        let json = self.format == LogFormat::Json || (self.format == LogFormat::Auto && !terminal);
        let started =
            if json { builder.json().flatten_event(true).try_init() } else { builder.with_ansi(terminal).try_init() };
        if started.is_err() {
            tracing::debug!("logging was started before");
            return;
        }
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if tracing::enabled!(tracing::Level::ERROR) { log_panic(panic) } else { usual(panic) }
        }));
    }
}

/// The usual hook writes to standard error itself and would wait for it, for ever if nobody reads.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("no message");
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(place, backtrace, "panicked: {message}");
    log::flush();
}

/// Upper ends of latency buckets in seconds: 0.25 ms to two minutes.
const SECONDS: [f64; 18] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0,
    120.0,
];

/// Upper ends of batch size buckets.
const SIZES: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1000.0];

/// Starts the metrics of this process; every series carries the label `process`.
///
/// Only the first call in a process installs the recorder; a later one gives a handle that stays empty (tests that run
/// several roles in one process).
pub fn start_metrics(process: &str, shutdown: &Shutdown) -> PrometheusHandle {
    let builder = PrometheusBuilder::new()
        .add_global_label("process", process)
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_size".into()), &SIZES))
        .expect("the buckets are not empty");
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::debug!("metrics were started before");
    }
    let (upkeep, stop) = (handle.clone(), shutdown.clone());
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            upkeep.run_upkeep();
        }
    });
    handle
}

/// Lines of the log that were lost because standard error was stuck or full.
pub const DROPPED_LINES: &str = "weir_log_lines_dropped_total";

/// The metrics at this moment, in Prometheus' text format.
pub fn render(handle: &PrometheusHandle) -> String {
    metrics::counter!(DROPPED_LINES).absolute(log::dropped());
    handle.render()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What tells the child that it is one.
    const CHILD: &str = "WEIR_TEST_PANICS";

    #[test]
    fn a_filter_with_blanks_is_read_and_one_that_no_library_expects_is_a_mistake() {
        assert_eq!(parse(" weir_worker=debug , info ").unwrap().to_string(), "weir_worker=debug,info");
        for text in ["\u{b}\u{b}n\u{414}= {\"24", " \u{414}\u{414}=debug", "info=nonsense=x"] {
            assert!(parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_panic_and_the_lines_before_it_come_out_whatever_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            LogConfig { format: LogFormat::Json, filter: "info".into() }.start();
            (0..1000).for_each(|number| tracing::info!(number, "a line"));
            assert!(std::thread::spawn(|| panic!("the last word")).join().is_err());
            std::process::exit(7);
        }
        let name = "telemetry::tests::a_panic_and_the_lines_before_it_come_out_whatever_ends_the_process";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(7), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.iter().filter(|line| line.contains("a line")).count(), 1000);
        let last = lines.last().unwrap();
        assert!(last.contains("panicked: the last word") && last.contains("telemetry.rs"), "{last}");
    }
}
