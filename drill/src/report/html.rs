//! The report as a page that needs nothing beside it: numbers, and a timeline of rates, latencies and faults.

use std::fmt::Write as _;

use super::{Report, text::shown};
use crate::fault::{Fault, Part};
use crate::timeline::Slice;

const WIDTH: f64 = 1160.0;
const LEFT: f64 = 70.0;
const PLOT: f64 = 130.0;
const LANE: f64 = 16.0;

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}.green{color:#06702c}.red{color:#b00020}\
svg{width:100%;height:auto;font:11px system-ui,sans-serif}@media(prefers-color-scheme:dark){body{background:#181a1b;\
color:#ddd}td,th{border-color:#444}.green{color:#5fd38d}.red{color:#ff7b85}svg text{fill:#ccc}}";

impl Report {
    /// A page with everything in it.
    pub fn html(&self) -> String {
        let mut page = String::with_capacity(1 << 18);
        let verdict = if self.green { ("green", "GREEN: every promise held") } else { ("red", "RED") };
        // Nothing in here comes from outside but the findings, which are ours too; numbers and names need no escaping.
        page.push_str("<!doctype html><html lang=en><meta charset=utf-8><title>weir drill</title><style>");
        page.push_str(STYLE);
        let _ = write!(
            page,
            "</style><h1>weir drill <span class={}>{}</span></h1><p>Weir {} {}, seed {}, {}, {:.0} s, {} gateways, {} \
             workers, {} senders.</p>",
            verdict.0,
            verdict.1,
            self.version,
            escape(self.commit.as_deref().unwrap_or_default()),
            self.seed,
            self.started,
            self.seconds,
            self.fleet[0],
            self.fleet[1],
            self.fleet[2]
        );
        self.write_findings(&mut page);
        self.write_counts(&mut page);
        self.write_timeline(&mut page);
        self.write_fault_table(&mut page);
        page.push_str("</html>\n");
        page
    }

    fn write_findings(&self, page: &mut String) {
        if self.findings.is_empty() {
            return;
        }
        page.push_str("<ul class=red>");
        for finding in &self.findings {
            let _ = write!(page, "<li>{}</li>", escape(finding));
        }
        page.push_str("</ul>");
    }

    fn write_counts(&self, page: &mut String) {
        let verdict = &self.verdict;
        let rows = [
            ("messages sent", verdict.sent),
            ("of them events of MAX", verdict.events),
            ("acknowledged", verdict.acknowledged),
            ("refused every time", verdict.refused),
            ("of which nobody knows", verdict.unknown),
            ("rows", verdict.rows),
            ("events that make no message", verdict.silent),
            ("profiles", verdict.people),
            ("dead letters", verdict.dead),
            ("lost", verdict.lost),
            ("there more than once", verdict.doubled),
            ("there without having been accepted", verdict.phantoms),
            ("2xx that were not true", verdict.wrong_2xx),
            ("edits and removals not as acknowledged", verdict.stale_texts + verdict.wrong_removals),
            ("profiles not as acknowledged", verdict.wrong_people),
            ("processes killed", self.kills as u64),
        ];
        page.push_str("<table>");
        for (what, n) in rows {
            let _ = write!(page, "<tr><td>{what}<td>{n}</tr>");
        }
        if let Some(bound) = self.loss_per_kill_at_most {
            let _ = write!(page, "<tr><td>chance of a loss per kill, at 95 %<td>&le; {:.2} %</tr>", bound * 100.0);
        }
        page.push_str("</table>");
    }

    fn write_timeline(&self, page: &mut String) {
        let end = self.slices.last().map_or(1.0, |slice| slice.at).max(1.0);
        let x = |at: f64| LEFT + (WIDTH - LEFT) * (at / end).clamp(0.0, 1.0);
        let height = 2.0 * (PLOT + 30.0) + Part::ALL.len() as f64 * LANE + 30.0;
        let _ = write!(page, "<svg viewBox='0 0 {WIDTH} {height}' role=img aria-label='timeline'>");
        self.plot(
            page,
            20.0,
            "a second",
            &x,
            &[
                ("#1f77b4", "acknowledged", &|slice| Some(slice.accepted_per_second)),
                ("#2ca02c", "stored", &|slice| slice.stored_per_second),
                ("#d62728", "not acknowledged", &|slice| Some(slice.failed_per_second)),
            ],
        );
        self.plot(
            page,
            PLOT + 50.0,
            "ms",
            &x,
            &[("#9467bd", "p99", &|slice| slice.p99_ms), ("#8c564b", "p50", &|slice| slice.p50_ms)],
        );
        self.faults_by_part(page, 2.0 * PLOT + 80.0, &x);
        page.push_str("</svg>");
    }

    fn plot(&self, page: &mut String, top: f64, unit: &str, x: &dyn Fn(f64) -> f64, lines: &[Line<'_>]) {
        let values = lines.iter().flat_map(|(_, _, value)| self.slices.iter().filter_map(value));
        let most = values.fold(1.0, f64::max);
        let _ = write!(
            page,
            "<text x=0 y={}>{most:.0}</text><text x=0 y={}>{unit}</text><path d='M{LEFT} {top}V{}H{WIDTH}' fill=none \
             stroke='#999'/>",
            top + 8.0,
            top + 24.0,
            top + PLOT
        );
        for (index, (colour, name, value)) in lines.iter().enumerate() {
            let mut path = String::new();
            let mut pen = 'M';
            for slice in &self.slices {
                match value(slice) {
                    Some(value) => {
                        let y = top + PLOT - PLOT * (value / most);
                        let _ = write!(path, "{pen}{:.1} {y:.1}", x(slice.at));
                        pen = 'L';
                    }
                    None => pen = 'M',
                }
            }
            let _ = write!(
                page,
                "<path d='{path}' fill=none stroke='{colour}'/><text x={} y={} style='fill:{colour}'>{name}</text>",
                LEFT + 10.0 + 130.0 * index as f64,
                top - 4.0
            );
        }
    }

    fn faults_by_part(&self, page: &mut String, top: f64, x: &dyn Fn(f64) -> f64) {
        for (index, part) in Part::ALL.into_iter().enumerate() {
            let y = top + LANE * index as f64;
            let _ = write!(page, "<text x=0 y={:.1}>{}</text>", y + 11.0, part.name());
            for event in self.events.iter().filter(|event| event.fault.part() == part) {
                let (from, healed) = (x(event.struck), x(event.healed));
                let until = x(event.recovered.unwrap_or(event.healed + 60.0));
                let _ = write!(
                    page,
                    "<g><title>{} at {:.1} s, held {:.1} s, recovered {}</title><rect x={from:.1} y={y:.1} width={:.1} \
                     height=12 fill='{}'/><rect x={healed:.1} y={y:.1} width={:.1} height=12 fill='#f2b134'/></g>",
                    event.fault,
                    event.struck,
                    event.healed - event.struck,
                    event.recovery().map_or("never".to_owned(), |seconds| format!("after {seconds:.2} s")),
                    (healed - from).max(1.0),
                    colour(event.fault),
                    (until - healed).max(0.5),
                );
            }
        }
        let _ = write!(
            page,
            "<text x={LEFT} y={}>red: a process killed · grey: another fault · yellow: until work went on</text>",
            top + LANE * Part::ALL.len() as f64 + 14.0
        );
    }

    fn write_fault_table(&self, page: &mut String) {
        page.push_str("<table><tr><th>fault<th>times<th>recovery p50 / p95 / max (s)<th>measured</tr>");
        for fault in &self.faults {
            let _ = write!(
                page,
                "<tr><td title='{}'>{}<td>{}<td>{}<td>{}</tr>",
                escape(fault.fault.about()),
                fault.fault,
                fault.times,
                fault.recovery.map_or("-".to_owned(), shown),
                fault.recovery.map_or(0, |recovery| recovery.of)
            );
        }
        page.push_str("</table>");
        for reason in &self.left_out {
            let _ = write!(page, "<p>Left out: {}</p>", escape(reason));
        }
    }
}

/// Colour, name and value of a line.
type Line<'l> = (&'l str, &'l str, &'l dyn Fn(&Slice) -> Option<f64>);

fn colour(fault: Fault) -> &'static str {
    if fault.kills() { "#d62728" } else { "#777" }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;").replace('"', "&quot;")
}
