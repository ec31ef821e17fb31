//! The report for people.

use std::fmt;

use super::{Recovery, Report};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_head(f)?;
        self.write_messages(f)?;
        self.write_faults(f)?;
        self.write_end(f)
    }
}

impl Report {
    fn write_head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [gateways, workers, senders] = self.fleet;
        let commit = self.commit.as_deref().map(|commit| format!(" ({commit})")).unwrap_or_default();
        writeln!(f, "Weir {}{commit}, seed {}, {}", self.version, self.seed, self.started)?;
        writeln!(f, "{:.0} s, {gateways} gateways, {workers} workers, {senders} senders", self.seconds)?;
        writeln!(f)
    }

    fn write_messages(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = &self.verdict;
        let mut line = |what: &str, n: u64| writeln!(f, "  {what:<44} {n:>12}");
        line("messages sent", verdict.sent)?;
        line("  of them events of MAX", verdict.events)?;
        line("  acknowledged", verdict.acknowledged)?;
        line("  refused every time", verdict.refused)?;
        line("  of which nobody knows", verdict.unknown)?;
        line("  acknowledged after a doubt", verdict.resolved)?;
        line("rows", verdict.rows)?;
        line("events that make no message", verdict.silent)?;
        line("profiles", verdict.people)?;
        line("dead letters", verdict.dead)?;
        line("lost", verdict.lost)?;
        line("there more than once", verdict.doubled)?;
        line("there without having been accepted", verdict.phantoms)?;
        line("2xx that were not true", verdict.wrong_2xx)?;
        line("acknowledged under two message_ids", verdict.two_truths)?;
        line("dead without a reason of their own", verdict.wrongly_dead)?;
        line("edits and removals not as acknowledged", verdict.stale_texts + verdict.wrong_removals)?;
        line("profiles not as acknowledged", verdict.wrong_people)?;
        let drained = verdict.drained_seconds.map_or("not".to_owned(), |seconds| format!("{seconds:.1} s"));
        writeln!(f, "  {:<44} {drained:>12}", "drained after the load")?;
        let answers: Vec<String> = verdict
            .answers
            .by_status
            .iter()
            .map(|(status, n)| if *status == 0 { format!("none {n}") } else { format!("{status} {n}") })
            .collect();
        writeln!(f, "  {:<44} {}", "answers", answers.join(" · "))?;
        writeln!(f)
    }

    fn write_faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:<24} {:>6} {:>30}", "fault", "times", "recovery p50 / p95 / max (s)")?;
        for fault in &self.faults {
            let recovery = fault.recovery.map_or("-".to_owned(), shown);
            let mark = if fault.not_recovered > 0 { "  NOT RECOVERED" } else { "" };
            writeln!(f, "  {:<24} {:>6} {recovery:>30}{mark}", fault.fault.name(), fault.times)?;
        }
        for reason in &self.left_out {
            writeln!(f, "  left out: {reason}")?;
        }
        writeln!(f)
    }

    fn write_end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.kills;
        match self.loss_per_kill_at_most {
            Some(bound) => writeln!(
                f,
                "0 lost in {n} kills: at 95 % a kill loses something in at most {:.2} % of cases (3/{n})",
                bound * 100.0
            )?,
            None if n > 0 => writeln!(f, "{} lost in {n} kills", self.verdict.lost)?,
            None => writeln!(f, "no process was killed")?,
        }
        if self.green {
            return write!(f, "GREEN: every promise held");
        }
        writeln!(f, "RED:")?;
        for finding in &self.findings {
            writeln!(f, "  {finding}")?;
        }
        if self.verdict.examples.is_empty() {
            return Ok(());
        }
        write!(f, "  for example {}", self.verdict.examples.join(", "))
    }
}

pub(super) fn shown(recovery: Recovery) -> String {
    format!("{:.2} / {:.2} / {:.2}", recovery.p50, recovery.p95, recovery.max)
}
