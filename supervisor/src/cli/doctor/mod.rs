//! `weir doctor`.

mod database;
mod faults;
mod finding;
mod processes;
mod queue;
mod repair;
mod server;

use anyhow::Result;
use serde::Serialize;

use crate::Ending;
use crate::cli::Output;
use crate::context::Context;
use crate::output;
use crate::stack_file::StackFile;
use finding::{Finding, Findings, Verdict};
use repair::Repair;

/// Check Redis, PostgreSQL, the queue and the processes, and say how to fix what is wrong
///
/// Every check reads only, and only samples where there may be much. Exit code 3 when a check fails; warnings do not
/// change it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: weir doctor --output json | jq '.findings[] | select(.verdict != \"ok\")'")]
pub(crate) struct Doctor {
    /// Repair what can be repaired without a risk: drop function libraries of other builds, make missing months. Says
    /// only what it would do unless --yes is there too
    #[arg(long)]
    fix: bool,
    /// Do what --fix says
    #[arg(long, requires = "fix")]
    yes: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    failures: usize,
    warnings: usize,
    findings: &'a [Finding],
    /// What --fix did, or would do.
    repairs: Vec<String>,
}

impl Doctor {
    pub(crate) async fn run(self, context: &Context) -> Result<Ending> {
        let mut findings = Findings::default();
        examine(context, &mut findings).await;
        let mut repairs = Vec::new();
        if self.fix {
            for repair in &findings.repairs {
                repairs.push(if self.yes { repair.run(context).await? } else { format!("would {repair}; add --yes") });
            }
        }
        Ok(print(context.output, &findings, repairs))
    }
}

async fn examine(context: &Context, findings: &mut Findings) {
    match context.queue() {
        Ok(queue) => {
            if server::examine(context, &queue, findings).await {
                queue::examine(context, &queue, findings).await;
                processes::examine_workers(&queue, findings).await;
            }
        }
        Err(error) => findings.fail("redis", "reachable", format!("{error:#}"), "set WEIR_REDIS_URL, or run `weir up`"),
    }
    database::examine(context, findings).await;
    processes::examine_gateways(context, StackFile::read(&context.data).ok().flatten().as_ref(), findings).await;
}

fn print(output: Output, findings: &Findings, repairs: Vec<String>) -> Ending {
    let count = |verdict| findings.list.iter().filter(|finding| finding.verdict == verdict).count();
    let (failures, warnings) = (count(Verdict::Fail), count(Verdict::Warn));
    let report = Report { ok: failures == 0, failures, warnings, findings: &findings.list, repairs };
    if output == Output::Json {
        output::json(&report);
    } else {
        output::rows(output, &["", "part", "check", "found"], &findings.list, |finding| {
            let fix = finding.fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
            let found = format!("{}{fix}", finding.found);
            vec![finding.verdict.to_string(), finding.part.into(), finding.check.into(), found]
        });
        output::line("");
        for repair in &report.repairs {
            output::line(output::escape(repair));
        }
        output::line(format_args!("{failures} failed, {warnings} warnings, {} checks", findings.list.len()));
    }
    if report.ok { Ending::Done } else { Ending::Negative }
}
