//! What the parts could give alone, on the same machine and in the same minutes: raw calls of the queue's function, COPY
//! into the same tables, syncs of the same disk. The limit of HTTP is `bare`.

pub(crate) mod copy;

pub(crate) mod disk;

pub(crate) mod queue;
