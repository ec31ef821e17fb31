//! The report as a page that needs nothing beside it.

use std::fmt::Write as _;

use super::markdown::list;
use super::{Report, shown};

const STYLE: &str = "\
:root{--back:#fff;--text:#1d2126;--faint:#667;--line:#d9dce1;--good:#06702c;--bad:#b00020;\
--s0:#1f77b4;--s1:#d1670b;--s2:#2b8a3e;--s3:#b3243b;--s4:#7d55b0;--s5:#8c564b;--s6:#0a8a92;--s7:#6b7280}\
@media(prefers-color-scheme:dark){:root{--back:#15181c;--text:#dde1e6;--faint:#99a;--line:#343a42;--good:#5fd38d;\
--bad:#ff7b85;--s0:#6cb2eb;--s1:#f6a55a;--s2:#69c47d;--s3:#f2818f;--s4:#b89ae0;--s5:#c79a8f;--s6:#5fc6cc;--s7:#a3a9b5}}\
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;background:var(--back);\
color:var(--text)}h2{margin-top:2em;border-bottom:1px solid var(--line)}\
table{border-collapse:collapse;margin:1em 0;width:100%}td,th{padding:.25em .7em;text-align:right;vertical-align:top;\
border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}td:first-child,th:first-child,.left{text-align:left}\
.faint,.turns{color:var(--faint);font-size:.85em}.good{color:var(--good)}.bad{color:var(--bad)}code{font-size:.9em}\
svg{width:100%;height:auto;max-width:900px;display:block}svg text{font:11px system-ui,sans-serif;fill:var(--text)}\
svg .axis{stroke:var(--faint);fill:none}svg .grid{stroke:var(--line)}figure{margin:1.5em 0}figcaption{font-weight:600}";

impl Report {
    pub(super) fn html(&self) -> String {
        let mut page = String::with_capacity(1 << 17);
        let _ = write!(
            page,
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
             <title>Weir, measured</title><style>{STYLE}</style><h1>Weir, measured</h1><table>"
        );
        for (name, fact) in self.facts() {
            let _ = write!(page, "<tr><td>{name}<td class=left>{}", escape(&fact));
        }
        page.push_str("</table>");
        self.write_failures(&mut page);
        self.write_goals(&mut page);
        for (part, about) in self.parts() {
            let _ = write!(page, "<h2>{}</h2><p>{}</p>", escape(part), escape(about));
            for plot in self.plots.iter().filter(|plot| plot.part == part) {
                plot.write(&mut page);
            }
            self.write_figures(&mut page, part);
        }
        page.push_str("</html>\n");
        page
    }

    fn write_failures(&self, page: &mut String) {
        if self.failures.is_empty() {
            return;
        }
        page.push_str("<h2 class=bad>Could not be measured</h2><ul>");
        for (what, why) in &self.failures {
            let _ = write!(page, "<li class=bad>{}: {}", escape(what), escape(why));
        }
        page.push_str("</ul>");
    }

    fn write_goals(&self, page: &mut String) {
        page.push_str("<h2>Goals</h2><table><tr><th>Goal<th class=left>Formula<th>Target<th>Found<th>");
        for verdict in &self.verdicts {
            let class = match verdict.met {
                Some(true) => "good",
                Some(false) => "bad",
                None => "faint",
            };
            let _ = write!(
                page,
                "<tr><td>{}<td class='left faint'>{}<td>{}<td>{}<td class={class}>{}",
                escape(verdict.name),
                escape(verdict.formula),
                escape(&verdict.target),
                verdict.found.map_or("-".to_owned(), shown),
                verdict.word()
            );
        }
        page.push_str("</table>");
    }

    fn write_figures(&self, page: &mut String, part: &str) {
        let mut figures = self.figures_of(part).peekable();
        let Some(first) = figures.peek() else { return };
        let _ = write!(
            page,
            "<p class=faint>From <code>{}</code></p><table><tr><th>Figure<th>Median<th class=left>Unit\
             <th class=left>Turns<th class=left>Beside",
            escape(&first.from)
        );
        for figure in figures {
            let turns = if figure.turns.len() > 1 { list(&figure.turns) } else { String::new() };
            let _ = write!(
                page,
                "<tr><td title='{}'>{}<td>{}<td class=left>{}<td class='left turns'>{turns}<td class='left turns'>{}",
                escape(&figure.id),
                escape(&figure.name),
                shown(figure.value),
                escape(figure.unit),
                escape(&figure.beside)
            );
        }
        page.push_str("</table>");
    }
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;").replace('"', "&quot;")
}
