//! Real proxies in front of a gateway, with the files of `deploy/`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use weir_stack::testing::{Scratch, eventually, scratch};
use weir_stack::{Process, free_port, tied_command};

use crate::support::{Gateway, House, Raw, SOON, WEBHOOK};

/// A proxy that runs until the test ends.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    _process: Process,
    _folder: Scratch,
}

/// Where no API answers: port 1 belongs to nobody.
const NO_API: &str = "127.0.0.1:1";

/// The Debian package installs it to where PATH may not lead.
pub(crate) fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .map(|folder: PathBuf| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!("{name} was not found: it is in the Debian package {package}, which `make test` installs")
        })
}

/// A file of `deploy/` with the addresses of a test, and with a second for everything that has ten or more.
fn example(name: &str, gateway: &Gateway, listen: (&str, &str)) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name);
    let mut text = fs::read_to_string(path).expect("a file of deploy/");
    let addresses = [("127.0.0.1:8095", gateway.address.to_string()), ("127.0.0.1:8097", NO_API.to_owned())];
    let addresses = addresses.iter().map(|(from, to)| (*from, to.as_str()));
    for (from, to) in [listen, (" 10s", " 1s"), (" 75s", " 1s")].into_iter().chain(addresses) {
        assert!(text.contains(from), "{from} is not in {name}");
        text = text.replace(from, to);
    }
    text
}

impl Proxy {
    pub(crate) async fn nginx(gateway: &Gateway) -> Self {
        let (folder, port) = (scratch(), free_port().expect("a port"));
        let dir = folder.path().display();
        let site = example("nginx.conf.example", gateway, ("listen 80;", &format!("listen 127.0.0.1:{port};")));
        let main = format!(
            "daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
             fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n{site}}}\n"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, main).expect("a configuration");
        // One process: workers would outlive a master that is killed.
        let mut command = tied_command(&program("nginx", "nginx-light"), "KILL").expect("setpriv");
        command.arg("-p").arg(folder.path()).arg("-e").arg(folder.path().join("error.log")).arg("-c").arg(&file);
        Self::start(command, folder, port).await
    }

    pub(crate) async fn haproxy(gateway: &Gateway) -> Self {
        let (folder, port) = (scratch(), free_port().expect("a port"));
        let text = example("haproxy.cfg.example", gateway, ("bind :80", &format!("bind 127.0.0.1:{port}")));
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, text).expect("a configuration");
        let mut command = tied_command(&program("haproxy", "haproxy"), "KILL").expect("setpriv");
        command.arg("-q").arg("-db").arg("-f").arg(&file);
        Self::start(command, folder, port).await
    }

    async fn start(command: std::process::Command, folder: Scratch, port: u16) -> Self {
        let process = Process::spawn(command).expect("the proxy starts");
        let address = ([127, 0, 0, 1], port).into();
        eventually("the proxy passes requests on", SOON, async || {
            assert!(process.exited().is_none(), "the proxy has ended: {:?}", process.exited());
            let Ok(stream) = tokio::net::TcpStream::connect(address).await else { return false };
            let mut raw = Raw(stream);
            raw.write(format!("GET {WEBHOOK} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
            raw.read_to_end().await.starts_with("HTTP/1.1 200")
        })
        .await;
        Self { address, _process: process, _folder: folder }
    }
}

/// The status that comes back for a path.
async fn status(proxy: &Proxy, path: &str) -> String {
    let mut raw = Raw(tokio::net::TcpStream::connect(proxy.address).await.expect("the proxy"));
    raw.write(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
    raw.read_to_end().await.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_send_webhooks_to_the_gateway_and_everything_else_to_the_api() {
    let house = House::new().await;
    for proxy in [Proxy::nginx(&house.gateway).await, Proxy::haproxy(&house.gateway).await] {
        for ours in ["/api/v1/webhook", "/api/v1/webhook/batch", "/webhook/max", "/in/messenger", "/in/messenger/batch"]
        {
            assert_eq!(status(&proxy, ours).await, "200", "{ours}");
        }
        assert_eq!(status(&proxy, "/in/nobody").await, "404");
        // Nobody is there, as the proxy says itself; the gateway would not know the path.
        for theirs in
            ["/", "/health", "/swagger/", "/api/v1/search", "/api/v1/webhooks", "/profiles/in", "/monitoring/alerts"]
        {
            let status = status(&proxy, theirs).await;
            assert!(["502", "503"].contains(&status.as_str()), "{theirs}: {status}");
        }
    }
}
