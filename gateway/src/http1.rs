//! HTTP/1.1 on one connection. hyper serves it in spells: a connection that has been idle for a moment rests, and hyper with
//! its buffers, most of what a connection takes, is gone until more bytes come.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use hyper::body::Incoming;
use hyper::header::CONNECTION;
use hyper::server::conn::http1::{self, Parts};
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::answer::Answer;
use crate::config::HttpConfig;
use crate::deadline::{Pace, Reading, Timed, Watched};
use crate::server::{HEADER_BYTES, HEADERS};
use crate::stop::Stop;
use crate::upgrade;

/// How a connection ended.
pub(crate) type Ended<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// What HTTP/1.1 is spoken over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Watched + Unpin {}

impl<S: AsyncRead + AsyncWrite + Watched + Unpin> Stream for S {}

/// Serves a connection whose first head has to be there at `by`, until it ends or `closing` finds it idle. An answer
/// without `Connection: close` says that its request was read to its end.
pub(crate) async fn serve<F: Future<Output = Answer>>(
    stream: impl Stream,
    by: Instant,
    (http, closing): (&HttpConfig, &Stop),
    answer: impl Fn(Request<Incoming>) -> F,
) -> Ended {
    let pace = Pace::new(http, by);
    let mut stream = Timed::new(stream, Reading::Paced(pace.clone()), http, closing.clone());
    while stream.wakes().await? {
        match Box::pin(spell(stream, &pace, closing, &answer)).await? {
            Some(rests) => stream = rests,
            None => return Ok(()),
        }
    }
    Ok(stream.shutdown().await?)
}

/// Serves it until it ends, or rests and comes back. If it speaks something else from an answer on, carries that.
async fn spell<S: Stream, F: Future<Output = Answer>>(
    stream: Timed<S>,
    pace: &Arc<Pace>,
    closing: &Stop,
    answer: &impl Fn(Request<Incoming>) -> F,
) -> Ended<Option<Timed<S>>> {
    let upgrade = OnceLock::new();
    let upgraded = &upgrade;
    let service = service_fn(move |request| {
        // At once: before the first look at what answers it, hyper looks for more bytes.
        pace.busy();
        async move {
            let mut answer = answer(request).await;
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                upgraded.get_or_init(|| hyper::upgrade::on(&mut answer));
            }
            // hyper ends it, perhaps in the middle of a body: what comes then must not be taken for a request.
            if answer.headers().contains_key(CONNECTION) {
                pace.last()
            } else {
                pace.idle()
            }
            Ok::<_, Infallible>(answer)
        }
    });
    // Its timer would count idle time as time for the headers; `Timed` has the deadlines.
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_headers(HEADERS)
        .max_header_size(HEADER_BYTES)
        .max_buf_size(64 << 10)
        // An answer of one frame is cheaper copied than as two pieces. Not `pipeline_flush`: it holds answers back
        // for as long as a part of another request has arrived, in memory without bound.
        .writev(false)
        .serve_connection(TokioIo::new(stream), service);
    let ended = match closing.or(&mut connection).await {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let Parts { io, read_buf, .. } = connection.into_parts();
    let mut stream = io.into_inner();
    if let Some(upgrade) = upgrade.into_inner() {
        let (stream, unread) = stream.into_inner();
        upgrade::carry(stream, [read_buf, unread], upgrade, closing).await?;
        return Ok(None);
    }
    if stream.rests(read_buf) {
        // To hyper it ended, with an error if a part of a head was there.
        return Ok(Some(stream));
    }
    Ok(ended.map(|()| None)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::path::Path;
    use std::time::Duration;

    use http_body_util::BodyExt as _;
    use hyper::header::HeaderValue;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;
    use weir_core::config::Reader;

    use super::*;
    use crate::config::GatewayConfig;

    const REQUEST: &str = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi";

    /// A connection from both sides, as `serve` has it between two spells.
    struct Both {
        client: TcpStream,
        stream: Timed<TcpStream>,
        pace: Arc<Pace>,
        closing: Stop,
    }

    fn http(flags: &[(&str, &str)]) -> HttpConfig {
        let flags: BTreeMap<_, _> = flags.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        GatewayConfig::read(&mut Reader::new(flags, BTreeMap::new(), Path::new("/nonexistent"), false)).http
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let server = listener.accept().await.unwrap().0;
        // tokio believes that a new socket has something until somebody has looked.
        server.try_read(&mut [0]).unwrap_err();
        (client, server)
    }

    impl Both {
        async fn new(flags: &[(&str, &str)]) -> Self {
            let (http, closing, (client, server)) = (http(flags), Stop::new(), pair().await);
            let pace = Pace::new(&http, Instant::now() + http.header_timeout);
            let stream = Timed::new(server, Reading::Paced(pace.clone()), &http, closing.clone());
            Self { client, stream, pace, closing }
        }

        async fn write(&mut self, bytes: &str) {
            self.client.write_all(bytes.as_bytes()).await.unwrap();
        }

        /// One spell; it must end with rest.
        async fn until_it_rests<F: Future<Output = Answer>>(self, answer: impl Fn(Request<Incoming>) -> F) -> Self {
            let Self { client, mut stream, pace, closing } = self;
            assert!(soon(stream.wakes()).await.unwrap());
            let rests = soon(spell(stream, &pace, &closing, &answer)).await.unwrap();
            Self { client, stream: rests.expect("it rests"), pace, closing }
        }

        /// One spell, which ends the connection; and what the client has been told since.
        async fn until_it_ends<F: Future<Output = Answer>>(
            self,
            answer: impl Fn(Request<Incoming>) -> F,
        ) -> (Ended, String) {
            let Self { mut client, mut stream, pace, closing } = self;
            assert!(soon(stream.wakes()).await.unwrap());
            let mut told = Vec::new();
            let serving = async {
                let ended = spell(stream, &pace, &closing, &answer).await;
                ended.map(|stream| assert!(stream.is_none(), "it rests"))
            };
            let (ended, _) = soon(async { tokio::join!(serving, client.read_to_end(&mut told)) }).await;
            (ended, String::from_utf8(told).unwrap())
        }
    }

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(60), future).await.expect("it ends")
    }

    fn told(text: impl Into<Vec<u8>>) -> Answer {
        Answer::new(text.into().into())
    }

    /// What the request's body was.
    async fn echo(request: Request<Incoming>) -> Answer {
        told(request.into_body().collect().await.unwrap().to_bytes())
    }

    /// Does not care for the body, and says so.
    async fn hang_up(_: Request<Incoming>) -> Answer {
        let mut answer = told("bye");
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        answer
    }

    #[tokio::test]
    async fn a_connection_rests_after_each_request_and_goes_on_with_the_next() {
        let mut both = Both::new(&[]).await;
        for _ in 0..3 {
            both.write(REQUEST).await;
            both = both.until_it_rests(echo).await;
            let mut answer = [0; 1024];
            let n = both.client.read(&mut answer).await.unwrap();
            assert!(answer[..n].ends_with(b"\r\n\r\nhi"));
        }
        both.client.shutdown().await.unwrap();
        let (ended, rest) = both.until_it_ends(echo).await;
        assert_eq!((ended.is_ok(), rest.as_str()), (true, ""));
    }

    #[tokio::test]
    async fn the_beginning_of_the_next_head_survives_a_rest() {
        let mut both = Both::new(&[]).await;
        let (first, second) = REQUEST.split_at(20);
        both.write(&format!("{REQUEST}{first}")).await;
        both = both.until_it_rests(echo).await;
        both.write(&format!("{second}{}", REQUEST.replace("host", "connection: close\r\nhost"))).await;
        let (ended, answers) = both.until_it_ends(echo).await;
        ended.unwrap();
        assert_eq!(answers.matches("\r\n\r\nhi").count(), 3, "{answers}");
    }

    #[tokio::test]
    async fn the_beginning_of_a_head_has_its_deadline_after_a_rest() {
        for request in [REQUEST.to_owned(), format!("{REQUEST}P")] {
            let mut both = Both::new(&[("http.header_timeout", "200ms")]).await;
            both.write(&request).await;
            both = both.until_it_rests(echo).await;
            both.write("P").await;
            assert!(both.until_it_ends(echo).await.0.is_err());
        }
    }

    #[tokio::test]
    async fn what_follows_a_body_that_nobody_read_is_not_taken_for_a_request() {
        let mut both = Both::new(&[]).await;
        both.write("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n").await;
        let serving = both.until_it_ends(hang_up).await;
        assert_eq!(serving.1.matches("bye").count(), 1);
    }

    #[tokio::test]
    async fn who_has_not_taken_an_answer_does_not_rest() {
        let mut both = Both::new(&[("http.write_timeout", "300ms")]).await;
        both.write(REQUEST).await;
        assert!(both.stream.wakes().await.unwrap());
        // More than both sockets hold.
        let answer = |_| async { told(vec![b'x'; 64 << 20]) };
        assert!(soon(spell(both.stream, &both.pace, &both.closing, &answer)).await.is_err());
    }

    #[tokio::test]
    async fn a_resting_connection_is_closed_when_it_is_idle_for_too_long_and_when_the_gateway_stops() {
        for stops in [false, true] {
            let mut both = Both::new(&[("http.idle_timeout", if stops { "1h" } else { "100ms" })]).await;
            both.write(REQUEST).await;
            both = both.until_it_rests(echo).await;
            if stops {
                both.closing.give();
            }
            assert!(!soon(both.stream.wakes()).await.unwrap());
        }
    }

    #[tokio::test]
    async fn who_says_nothing_at_first_is_overdue() {
        let mut both = Both::new(&[("http.header_timeout", "100ms")]).await;
        assert_eq!(soon(both.stream.wakes()).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn the_last_answer_is_followed_by_an_end() {
        let (mut client, server) = pair().await;
        let http = http(&[("http.idle_timeout", "100ms")]);
        client.write_all(REQUEST.as_bytes()).await.unwrap();
        let (closing, mut answers) = (Stop::new(), String::new());
        let by = Instant::now() + http.header_timeout;
        let serving = serve(server, by, (&http, &closing), echo);
        let (served, read) = soon(async { tokio::join!(serving, client.read_to_string(&mut answers)) }).await;
        served.unwrap();
        assert!(read.is_ok() && answers.ends_with("\r\n\r\nhi"), "{answers}");
    }
}
