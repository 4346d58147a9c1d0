//! Seeds: addresses and names as they are, and lists that lie in a file or behind an https URL.
//!
//! A list holds one seed a line, `#` begins a comment. It is read again each time somebody is asked, so that it may
//! change while a node waits; a list that cannot be read now is no error, the others may do.

use super::config::seed_address;
use crate::{
    drivers::helpers,
    model::limits::{SEED_LIST_BYTES_MAX, SEEDS_MAX},
};
use std::{fs::File, io::Read, time::Duration};
use ureq::tls::TlsConfig;

const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a seed is a list, not an address.
pub fn is_list(seed: &str) -> bool {
    seed.contains("://")
}

/// All addresses, in order, each once.
pub async fn addresses(seeds: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for seed in seeds {
        let listed = match is_list(seed) {
            false => vec![seed.clone()],
            true => read(seed).await.unwrap_or_else(|why| {
                log::warn!("cannot read the seeds in {seed}: {why}");
                Vec::new()
            }),
        };
        for address in listed {
            if !all.contains(&address) && all.len() < SEEDS_MAX {
                all.push(address);
            }
        }
    }
    all
}

async fn read(url: &str) -> Result<Vec<String>, String> {
    let place = url.to_owned();
    let text = helpers::unblock(move || fetch(&place, TlsConfig::default())).await?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty());
    lines.map(|line| seed_address(line).ok_or_else(|| format!("`{:.80}` is no host:port", line.escape_debug()))).collect()
}

/// `tls`: whom to believe behind an URL; by default whom browsers believe.
fn fetch(url: &str, tls: TlsConfig) -> Result<String, String> {
    let mut text = String::new();
    let most = SEED_LIST_BYTES_MAX as u64 + 1;
    if let Some(path) = url.strip_prefix("file://") {
        File::open(path).and_then(|file| file.take(most).read_to_string(&mut text)).map_err(|error| error.to_string())?;
    } else {
        let config = ureq::Agent::config_builder().https_only(true).timeout_global(Some(FETCH_TIMEOUT)).user_agent("disco");
        let mut answer = config.tls_config(tls).build().new_agent().get(url).call().map_err(|error| error.to_string())?;
        answer.body_mut().as_reader().take(most).read_to_string(&mut text).map_err(|error| error.to_string())?;
    }
    if text.len() > SEED_LIST_BYTES_MAX {
        return Err(format!("it is longer than {SEED_LIST_BYTES_MAX} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::{
        ServerConfig, ServerConnection, StreamOwned,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    };
    use std::{io::Write, net::TcpListener, sync::Arc, thread};
    use ureq::tls::{Certificate, RootCerts};

    /// A web server on loopback that gives each caller one page, and how to believe it.
    fn https(pages: Vec<String>) -> (String, TlsConfig, thread::JoinHandle<()>) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a plain name");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("ring has them");
        let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).expect("a pair"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("https://{}/seeds", listener.local_addr().expect("it is bound"));
        let server = thread::spawn(move || {
            for page in pages {
                let (tcp, _) = listener.accept().expect("somebody asks");
                let mut tls = StreamOwned::new(ServerConnection::new(config.clone()).expect("settings are whole"), tcp);
                let mut request = [0; 1024];
                // Who does not believe us says so here.
                if tls.read(&mut request).is_ok() {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", page.len());
                    let _ = tls.write_all((head + &page).as_bytes());
                    tls.conn.send_close_notify();
                    let _ = tls.flush();
                }
            }
        });
        let roots = RootCerts::Specific(Arc::new(vec![Certificate::from_der(cert.der()).to_owned()]));
        (url, TlsConfig::builder().root_certs(roots).build(), server)
    }

    #[test]
    fn a_list_behind_https_is_read_whole_or_not_at_all_and_only_from_whom_one_believes() {
        let (url, trusting, server) =
            https(vec!["# two\n10.0.0.1\n10.0.0.2:99\n".into(), "x".repeat(SEED_LIST_BYTES_MAX + 1), "10.0.0.3".into()]);
        assert_eq!(fetch(&url, trusting.clone()), Ok("# two\n10.0.0.1\n10.0.0.2:99\n".into()));
        let too_long = fetch(&url, trusting.clone()).expect_err("it is too long");
        assert!(too_long.contains("longer than"), "{too_long}");
        fetch(&url, TlsConfig::default()).expect_err("nobody vouches for this server");
        server.join().expect("all were served");
        fetch(&url.replace("https", "http"), trusting).expect_err("nothing in the open");
    }

    #[test]
    fn a_list_is_read_line_by_line_and_one_that_cannot_be_is_passed_over() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let list = folder.path().join("seeds");
        std::fs::write(&list, "# ours\n10.0.0.1\nnode.example:99 # the second\n\n10.0.0.1:5080\n").expect("the disk works");
        let url = format!("file://{}", list.display());
        let seeds = ["10.0.0.9:5080".to_owned(), url, "file:///does/not/exist".into()];
        assert_eq!(smol::block_on(addresses(&seeds)), ["10.0.0.9:5080", "10.0.0.1:5080", "node.example:99"]);
        std::fs::write(&list, "not an address\n").expect("the disk works");
        assert_eq!(smol::block_on(addresses(&seeds)), ["10.0.0.9:5080"], "a list with a mistake is not half a list");
    }
}
