//! Swagger UI as a browser shows it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hyper::Method;
use weir_api::routes;
use weir_stack::testing::scratch;
use weir_stack::tied_command;

use crate::support::House;

/// Debian's name, and those of others.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// What the page has to be given at most to draw itself, in its own time: the browser does not wait for it in ours.
const BUDGET: &str = "--virtual-time-budget=60000";

fn browser() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(["/usr/bin".into()]).collect();
    let found = BROWSERS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    found.into_iter().find(|file| file.is_file()).unwrap_or_else(|| {
        panic!("no Chromium was found: it is in the Debian package chromium, which `make test` installs")
    })
}

/// Runs the browser on a page without anything of ours around it; gives what it printed.
async fn look(url: &str, folder: &Path, arguments: &[String]) -> (String, String) {
    let mut command: Command = tied_command(&browser(), "KILL").expect("setpriv");
    command
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"])
        // What a browser asks of its maker by itself is not asked by the page.
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"])
        .args(["--disable-domain-reliability", "--disable-default-apps", "--no-pings", "--disable-extensions"])
        .arg("--disable-features=OptimizationHints,MediaRouter,Translate,AutofillServerCommunication")
        // Nobody else can be reached: names lead nowhere.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("--log-net-log={}", folder.join("net.json").display()))
        .args(["--enable-logging=stderr", "--v=0", BUDGET])
        .args(arguments)
        .arg(url)
        .env("HOME", folder)
        .stdin(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let ended = tokio::time::timeout(Duration::from_secs(180), command.output()).await;
    let output = ended.expect("the browser ends").expect("the browser runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (page, log) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{}: {log}", output.status);
    (page, log)
}

/// Every URL that the page asked for over the network, from the browser's own log, in which each event is a line. What the
/// browser asks of its maker by itself has no origin.
fn asked_for(folder: &Path) -> Vec<String> {
    let log = fs::read_to_string(folder.join("net.json")).expect("a log of the network");
    let after = |line: &str, mark: &str| Some(line.split_once(mark)?.1.split_once('"')?.0.to_owned());
    let of_page = log.lines().filter(|line| after(line, "\"initiator\":\"").is_some_and(|from| from.contains("://")));
    let mut urls: Vec<String> = of_page.filter_map(|line| after(line, "\"url\":\"")).collect();
    urls.sort_unstable();
    urls.dedup();
    urls
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_every_operation_and_asks_nobody_else_for_anything() {
    let house = House::new().await;
    let (folder, url) = (scratch(), house.url("/swagger/"));
    let (page, log) = look(&url, folder.path(), &["--dump-dom".to_owned()]).await;
    for route in routes().into_iter().filter(|route| route.documented) {
        // A mark that a line may be broken at follows each slash.
        let shown = page.replace('\u{200b}', "");
        let path = format!("data-path=\"{}\"", route.path);
        assert!(shown.contains(&path), "{} is not shown: {log}\n{shown}", route.path);
    }
    assert!(!page.contains("validator-badge") && !page.contains("Failed to load"), "{page}");
    for violation in ["Content Security Policy", "Uncaught", "ERR_"] {
        assert!(!log.contains(violation), "{log}");
    }
    let asked = asked_for(folder.path());
    let home = house.url("/");
    assert!(asked.iter().any(|url| url.ends_with("/openapi.json")), "{asked:?}");
    let elsewhere: Vec<_> = asked.iter().filter(|url| !url.starts_with(&home)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_can_be_looked_at() {
    let house = House::new().await;
    let (folder, url) = (scratch(), house.url("/swagger/"));
    let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/").join("swagger");
    fs::create_dir_all(&shots).expect("a folder");
    let shot = shots.join("operations.png");
    drop(fs::remove_file(&shot));
    let arguments = [format!("--screenshot={}", shot.display()), "--window-size=1280,2400".to_owned()];
    look(&url, folder.path(), &arguments).await;
    let picture = fs::read(&shot).expect("a picture");
    assert!(picture.starts_with(b"\x89PNG"), "{} is no picture", shot.display());
    // An empty page of that size has some ten thousand bytes.
    assert!(picture.len() > 60_000, "{}: {} bytes", shot.display(), picture.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_comes_from_the_binary_and_allows_nothing_from_elsewhere() {
    let house = House::new().await;
    let get = async |path: &str| house.call(Method::GET, path, None, None).await;
    let bare = get("/swagger").await;
    assert_eq!((bare.status, bare.header("location")), (308, "/swagger/"));
    let page = get("/swagger/").await;
    let text = String::from_utf8_lossy(&page.body);
    assert!(page.status == 200 && page.header("content-type").starts_with("text/html"), "{page:?}");
    assert!(!text.contains("http://") && !text.contains("https://"), "{text}");
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe-eval") && !policy.contains("script-src 'self' 'unsafe-inline'"), "{policy}");
    let settings = get("/swagger/swagger-initializer.js").await;
    let settings = String::from_utf8_lossy(&settings.body).into_owned();
    assert!(settings.contains("/openapi.json") && settings.contains("\"validatorUrl\": \"none\""), "{settings}");
    assert!(settings.contains("\"persistAuthorization\": false"), "a key stays in no browser: {settings}");
    get("/swagger/no-such-file").await.is_problem(404, "not-found");
    get("/swagger/..%2f..%2fCargo.toml").await.is_problem(404, "not-found");
}
