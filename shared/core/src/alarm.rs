//! What happens when a part of a process panics: the process must not go on without it.

use crate::shutdown::Shutdown;

/// Runs a part of a process. Should it panic, that is counted, logged and `broken` cancelled, and whoever holds the other
/// end of it begins anew or ends the process.
pub async fn guarded<F: Future>(part: &'static str, broken: Shutdown, future: F) -> F::Output {
    let _alarm = Alarm { part, broken };
    future.await
}

struct Alarm {
    part: &'static str,
    broken: Shutdown,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            metrics::counter!("weir_panics_total", "part" => self.part).increment(1);
            tracing::error!(part = self.part, "a part of the process panicked: a bug, please report it");
            self.broken.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_raises_the_alarm_and_an_end_does_not() {
        let broken = Shutdown::new();
        guarded("test", broken.clone(), async {}).await;
        assert!(!broken.is_cancelled());
        let task = tokio::spawn(guarded("test", broken.clone(), async { panic!("on purpose") }));
        assert!(task.await.is_err_and(|error| error.is_panic()));
        assert!(broken.is_cancelled());
    }

    #[tokio::test]
    async fn a_part_that_is_dropped_raises_no_alarm() {
        let broken = Shutdown::new();
        drop(guarded("test", broken.clone(), std::future::pending::<()>()));
        assert!(!broken.is_cancelled());
    }
}
