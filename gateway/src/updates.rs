//! The way of MAX's updates from a body to an answer.

use std::num::NonZeroU32;

use bytes::Bytes;
use hyper::StatusCode;
use weir_core::queue::enqueue::NewEntry;
use weir_core::trace::TraceParent;

use crate::answer::{Answer, NotTaken, Updates, json};
use crate::ingest::{Ingest, unix_now};
use crate::max;
use crate::rejection::Rejection;
use crate::source::Source;
use crate::writer::Entries;

impl Ingest {
    /// Takes what MAX sends: mostly one update. It is told that all is well unless something could not be made safe: what it
    /// is refused comes again, and after hours of that the bot is given up.
    pub(crate) async fn take_updates(
        &self,
        source: &Source,
        trace: TraceParent,
        body: Bytes,
    ) -> Result<Answer, Rejection> {
        source.limiter.check_source(NonZeroU32::MIN)?;
        let (entries, mut ignored) = read_updates(source, trace, &body)?;
        drop(body);
        ignored.iter().for_each(|reason| self.ignored.note(reason));
        if entries.is_empty() {
            let reason = ignored.pop().unwrap_or("empty");
            return Ok(json(StatusCode::OK, &NotTaken::because(reason)));
        }
        let updates = entries.len() + ignored.len();
        let answers = self.writer.send(entries).map_err(|_| self.too_many())?.answers().await;
        let (mut outcomes, mut conflicts) = (Vec::new(), 0);
        for answer in answers {
            match self.outcome(answer) {
                Ok(outcome) => outcomes.push(outcome),
                Err(Rejection::Conflict { first }) => {
                    tracing::warn!(%first, source = source.name, "another event came under an id that was accepted; ignored");
                    conflicts += 1;
                }
                Err(rejection) => return Err(rejection),
            }
        }
        if updates > 1 {
            let accepted = outcomes.iter().filter(|outcome| outcome.durability.is_some()).count();
            let duplicates = outcomes.len() - accepted;
            let ignored = ignored.len() + conflicts;
            return Ok(json(StatusCode::OK, &Updates { status: "accepted", accepted, duplicates, ignored }));
        }
        match outcomes.pop() {
            Some(outcome) => Ok(json(StatusCode::OK, &outcome)),
            None => Ok(json(StatusCode::OK, &NotTaken::because("conflict"))),
        }
    }
}

/// The events of a body, ready for the queue, and for each of the others why it is none.
fn read_updates(source: &Source, trace: TraceParent, body: &[u8]) -> Result<(Entries, Vec<&'static str>), Rejection> {
    let trace = trace.to_string();
    let (mut entries, mut ignored) = (Entries::new(), Vec::new());
    for update in max::decode(body, unix_now() * 1000, &trace) {
        match update {
            Ok(mut event) => {
                if let Some(user) = &event.user {
                    source.limiter.check_client(&user.id)?;
                }
                event.source = source.name.as_str().into();
                entries.push(NewEntry::from(&event));
            }
            Err(reason) => ignored.push(reason.as_str()),
        }
    }
    Ok((entries, ignored))
}
